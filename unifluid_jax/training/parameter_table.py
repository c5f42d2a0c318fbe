"""Logs a table of a model's parameters."""

from collections.abc import Mapping
from typing import Any

from absl import logging
from clu import parameter_overview


def log_parameters(name: str, parameters: Mapping[str, Any]) -> None:
  """Logs name, shape and size of each parameter.

  Args:
    name: Name of the network.
    parameters: The parameters or their shapes, by name.
  """
  table = parameter_overview.get_parameter_overview(
    parameters, include_stats=False
  )
  logging.info('%s:\n%s', name, table)
