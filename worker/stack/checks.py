"""What would make a process of the stack fail at every start, found before any is started."""

from engine.settings import Settings as EngineSettings
from engine.settings import SettingsError as EngineSettingsError
from engine.settings import misspelt_variables as misspelt_in_the_engine
from foundation.environment import warning_of
from worker.plans import Plans, PlansError
from worker.settings import Settings, SettingsError, misspelt_variables
from worker.stack.configuration import Configuration
from worker.stack.errors import StackError


def checked(config: Configuration) -> list[str]:
    """Return warnings for the operator. Raises `StackError` if a process could not work like this."""
    try:
        if config.scope.worker:
            Plans.load(Settings.of(config.worker_env).plans_file)
        if config.scope.engine:
            EngineSettings.of(config.engine_env)
    except (EngineSettingsError, PlansError, SettingsError) as exc:
        raise StackError(str(exc)) from None
    unknown = misspelt_variables(config.environment) | misspelt_in_the_engine(config.environment)
    return [f"Warning: {warning_of(name, nearest)}" for name, nearest in unknown.items()]
