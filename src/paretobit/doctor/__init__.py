"""The doctor: proves on one model, its data and its space that a search of them can be believed."""

from paretobit.doctor.base import Check, Finding, Patient
from paretobit.doctor.examine import CHECKS, examine
