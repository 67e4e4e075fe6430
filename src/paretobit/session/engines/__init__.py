"""Where trials run."""

from paretobit.session.engines.base import ENGINES, Engine, Execution, SerialEngine
from paretobit.session.engines.processes import ProcessEngine
