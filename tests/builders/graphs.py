"""Torch's exporter, which takes seconds, is run once for each kind of model and run of the tests.

A later model of that kind gets the same graph with its own numbers in it. Where the exporter made
others of them, as a product of two, every model is exported. That a graph is right is seen as
ever: `export_bundle` compares each with its model.
"""

import functools
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

FOLDER = "VJ2_DDIM_TEST_GRAPHS"
LEARNED = ("_mean", "_std")  # how the names of buffers end that are no part of the kind


def remember_graphs(folder=None):
    """Have `torch.onnx.export` look in a folder first, or in that of the tests that began this."""
    os.environ[FOLDER] = str(folder or os.environ[FOLDER])
    if not hasattr(torch.onnx, "remembers"):
        torch.onnx.export, torch.onnx.remembers = remembering(torch.onnx.export), True


def remembering(export):
    @functools.wraps(export)
    def exported(module, arguments, path, **how):
        import onnx  # here: every test passes by

        folder = Path(os.environ[FOLDER])
        folder.mkdir(exist_ok=True)
        kind, numbers = kind_of(module, arguments, how), numbers_of(module)
        known, places = folder / f"{kind}.onnx", folder / f"{kind}.json"
        with FileLock(folder / f"{kind}.lock"):  # who comes second waits, and has it
            if not places.exists():
                export(module, arguments, path, **how)
                graph = onnx.load(path)
                onnx.save(graph, known)
                places.write_text(json.dumps(places_of(graph, numbers)))
                return
        found = json.loads(places.read_text())
        if found is None:
            export(module, arguments, path, **how)
            return
        graph = onnx.load(known)
        for tensor in graph.graph.initializer:
            if tensor.name in found:
                name, turned = found[tensor.name]
                array = np.ascontiguousarray(numbers[name].T if turned else numbers[name])
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        onnx.save(graph, path)

    return exported


def numbers_of(module):
    """Parameters, and the buffers that are learned."""
    buffers = {name: of for name, of in module.named_buffers() if name.endswith(LEARNED)}
    found = {**dict(module.named_parameters()), **buffers}
    return {name: of.detach().numpy() for name, of in found.items()}


def kind_of(module, arguments, how):
    """A digest of all that decides a graph but `numbers_of` the module."""
    parts = [str(module), repr(sorted(how.items()))]
    parts += [f"{of.dtype}{of.shape}" for of in torch.utils._pytree.tree_leaves(arguments)]
    for name, of in (*module.named_parameters(), *module.named_buffers()):
        fixed = not isinstance(of, torch.nn.Parameter) and not name.endswith(LEARNED)
        parts.append(f"{name}{of.dtype}{of.shape}{of.numpy().tobytes() if fixed else ''}")
    for name, each in module.named_modules():
        own = {key: of for key, of in vars(each).items() if key[0] != "_" and key != "training"}
        parts.append(f"{name}{type(each)}{own}")
    text = "\0".join(parts)
    assert " at 0x" not in text, "a part of the model cannot be told from others of its kind"
    return hashlib.sha256(text.encode()).hexdigest()


def places_of(graph, numbers):
    """By initializer, whose numbers it holds and whether transposed; None if some are nowhere."""
    from onnx.numpy_helper import to_array

    arrays = {each.name: to_array(each) for each in graph.graph.initializer}
    places = {name: (name, False) for name in arrays if name in numbers}
    for name, of in numbers.items():
        if name in places:
            continue
        fits = [
            (other, turned)
            for other, array in arrays.items()
            for turned in (False, True)
            if other not in places and np.array_equal(of.T if turned else of, array)
        ]
        if not fits:
            return None
        places[fits[0][0]] = name, fits[0][1]
    return places
