"""Where Hydra finds configs; what people's own files say is looked at before Hydra does."""

from pathlib import Path

from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from yaml import YAMLError

from l2lgd.config.yaml_files import load_yaml
from l2lgd.errors import ConfigError, one_line
from l2lgd.storage.nesting import extent

MOST = 400  # loads of one composition, which has 60 of its own
VALUES = 100  # in a file, that take as long as one more load of it


class Repository(ConfigRepository):
    """Hydra's, which takes any YAML from a folder, however large, and fails on what is no mapping.

    Configs of packages are as much to be trusted as the packages.
    """

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.values: dict[str, int] = {}  # in each file that was loaded

    def load_config(self, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.scheme() != "file":
            return super().load_config(config_path)
        path = Path(source.path) / f"{config_path.removesuffix('.yaml')}.yaml"
        try:
            found = load_yaml(path)
            if found is not None and not isinstance(found, dict):
                raise ValueError("it is no mapping, such as seed: 1")
            self.values[config_path] = extent(found)[0]
            return super().load_config(config_path)
        except (YAMLError, OSError, ValueError, TypeError, AssertionError) as error:
            raise ConfigError(f"{path} cannot be read: {one_line(error)}") from error


class Bounded(CachingConfigRepository):
    """Hydra's of one composition, which has an end.

    Defaults lists name files that have such lists again: twenty of two lines stand for 2²⁰ loads.
    """

    def __init__(self, repository: CachingConfigRepository) -> None:
        self.delegate, self.cache = repository.delegate, repository.cache
        self._left = MOST

    def load_config(self, config_path: str) -> ConfigResult | None:
        found = super().load_config(config_path)
        values = self.delegate.values if isinstance(self.delegate, Repository) else {}
        self._left -= 1 + values.get(config_path, 0) // VALUES
        if self._left < 0:
            raise ConfigError(
                f"{config_path}: the defaults lists that lead to it name too many configs"
            )
        return found
