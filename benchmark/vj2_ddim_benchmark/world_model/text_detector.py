"""The backbone and neck of a text detector that others trained on signs and documents.

PP-OCRv4's graph comes with `rapidocr-onnxruntime` (Apache-2.0) and is cut here, in memory.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx.checker import ValidationError
from onnx.utils import extract_model

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import require_regular_file
from vj2_ddim_plugin.onnx.session import onnxruntime

PACKAGE, GRAPH = "rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx"
INSTALL = "pip install --no-deps rapidocr-onnxruntime==1.4.4"
FEATURES = "p2o.Add.251"  # the neck's sum at a stride of 8: [n, 96, H/8, W/8]
NUM_CHANNELS = 96
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


class TextDetector:
    """Frames to 96 numbers for every 8 x 8 pixels."""

    def __init__(self, graph: Path | None = None, threads: int = 1) -> None:
        """Read and cut a graph, that of the package unless told.

        Raises:
            ConfigError: It is not installed, or not the detector's; it says how to install it.
        """
        what = f"the text detector's graph, installed by: {INSTALL}"
        if (found := graph or installed_graph()) is None:
            raise ConfigError(
                f"the text detector's graph is not installed. Install it by: {INSTALL}"
            )
        self.graph = require_regular_file(found, ConfigError, what)
        with TemporaryDirectory() as folder:
            cut = Path(folder) / "cut.onnx"
            try:
                inputs = [onnx.load(self.graph).graph.input[0].name]
                extract_model(self.graph, cut, inputs, [FEATURES])
            except (OSError, ValueError, IndexError, DecodeError, ValidationError) as error:
                raise ConfigError(
                    f"{self.graph}: is not the text detector's graph, with {FEATURES!r} inside "
                    f"({error}). Install it by: {INSTALL}"
                ) from error
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            self._session = onnxruntime.InferenceSession(
                cut.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        self._input = inputs[0]

    def see(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Frames uint8 `[n, H, W, 3]` to cells float32 `[n, H/8, W/8, 96]`."""
        pixels = (frames.astype(np.float32) / 255 - MEAN) / STD
        pictures = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        (found,) = self._session.run([FEATURES], {self._input: pictures})
        return np.ascontiguousarray(found.transpose(0, 2, 3, 1))


@cache
def installed_detector() -> TextDetector:
    """The package's, read once, with as many threads as torch has then."""
    return TextDetector(threads=torch.get_num_threads())


def installed_graph() -> Path | None:
    """Where the package has it, if it is there; itself it is not imported, it needs OpenCV."""
    found = find_spec(PACKAGE)
    return None if found is None or found.origin is None else Path(found.origin).parent / GRAPH
