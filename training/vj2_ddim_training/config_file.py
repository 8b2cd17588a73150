"""A run's settings as a YAML file: flat, a key for each option of `vj2-ddim train`, read strictly.

```yaml
data_dir: recordings/train
val_data_dir: recordings/validation
condition: latents
lr: 3e-4
```
"""

import difflib
import os
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from vj2_ddim_plugin.errors import ConfigError, VJ2DDIMError
from vj2_ddim_plugin.files import require_regular_file
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.settings import Settings, declared, is_a, require_fits, shown
from vj2_ddim_training.config import DataSettings, JudgeSettings, ModelConfig, TrainingConfig

__all__ = ["config_text", "read_config"]

GROUPS: tuple[type[Settings], ...] = (
    DataSettings, ModelConfig, TrainingConfig, NoiseSchedule, JudgeSettings,
)  # fmt: skip
OF_A_START = ("resume", "overwrite")  # said of one start, not of a run
MOST_BYTES = 2**20


def read_config(path: Path | str) -> dict[str, Any]:
    """What a file says, by the settings' names; a folder's name is text, as in the file.

    Raises:
        ConfigError: The file is no YAML of `name: value`, or says something twice, or a name is no
            setting, or a value of another type or out of range.
    """
    told = _read_yaml(Path(path))
    if not isinstance(told, dict):
        raise ConfigError(f"{path}: found {shown(told)}, expected lines of 'name: value'")
    kinds = {name: kind for kind in GROUPS for name in declared(kind)}
    for name, value in told.items():
        if name not in kinds:
            near = difflib.get_close_matches(str(name), kinds, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else "'vj2-ddim train --help' lists them"
            raise ConfigError(
                f"{path}: {shown(name)} is no setting; expected the name of an option of "
                f"'vj2-ddim train', with underscores; {hint}"
            )
        try:
            is_path = is_a(Path(), get_type_hints(kinds[name])[name]) and isinstance(value, str)
            require_fits(kinds[name], name, Path(value) if is_path else value)
        except VJ2DDIMError as error:
            raise ConfigError(f"{path}: {name!r}{str(error).removeprefix(name)}") from error
    return told


def config_text(settings: Mapping[str, Any]) -> str:
    """A file that says all of these settings; what is told of a start alone is left out."""
    import yaml

    parts = ["# vj2-ddim train --config THIS_FILE --save-dir NEW_FOLDER repeats this run.\n"]
    for kind in GROUPS:
        names = [name for name in declared(kind) if name not in OF_A_START]
        said = {name: _as_yaml(settings[name]) for name in names}
        title = (kind.__doc__ or "").splitlines()[0]
        parts.append(f"\n# {title}\n{yaml.safe_dump(said, sort_keys=False, allow_unicode=True)}")
    return "".join(parts)


def _as_yaml(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Path):
        return os.path.realpath(value)
    return list(value) if isinstance(value, tuple) else value


def _read_yaml(path: Path) -> Any:  # noqa: ANN401
    import yaml

    require_regular_file(path, ConfigError, "a YAML file")
    try:
        content = path.read_bytes()
        if len(content) > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES} bytes")
        told = yaml.load(content.decode("utf-8"), Loader=_loader())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        why = (
            "nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
        )
        raise ConfigError(f"{path}: cannot be read as YAML ({why}). Repair it") from None
    return {} if told is None else told


@cache
def _loader() -> Any:  # noqa: ANN401
    """YAML's safe loader, which also reads 1e-4 as a number, and takes nothing said twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it has an alias, *name; write the value out")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: ANN401
            keys = Counter(shown(self.construct_object(key, deep=True)) for key, _ in node.value)
            if twice := [key for key, count in keys.items() if count > 1]:
                raise ValueError(f"the key {twice[0]} stands twice")
            return super().construct_mapping(node, deep)

    number = re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return Loader
