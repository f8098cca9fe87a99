"""Where Hydra finds configs; what people's own files say is looked at before Hydra does."""

from pathlib import Path

from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from yaml import YAMLError

from l2lgd.config.yaml_files import load_yaml
from l2lgd.errors import ConfigError, one_line


class Repository(ConfigRepository):
    """Hydra's, which takes any YAML from a folder, however large, and fails on what is no mapping.

    Configs of packages are as much to be trusted as the packages.
    """

    def load_config(self, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.scheme() != "file":
            return super().load_config(config_path)
        path = Path(source.path) / f"{config_path.removesuffix('.yaml')}.yaml"
        try:
            found = load_yaml(path)
            if found is not None and not isinstance(found, dict):
                raise ValueError("it is no mapping, such as seed: 1")
            return super().load_config(config_path)
        except (YAMLError, OSError, ValueError, TypeError, AssertionError) as error:
            raise ConfigError(f"{path} cannot be read: {one_line(error)}") from error
