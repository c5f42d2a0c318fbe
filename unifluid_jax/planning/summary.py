"""A plan as text, and many plans as a table."""

from collections.abc import Iterable, Mapping
from typing import Any

Plan = Mapping[str, Any]

_COLUMNS = (
  'config',
  'topology',
  'chips',
  'batch',
  'mesh',
  'remat',
  'microbatches',
  'GiB/chip',
  'remat factor',
  'MFU bound',
  'bound by',
  'images/s',
  'chip-hours',
)


def describe(plan: Plan) -> str:
  """Some lines on one plan."""
  lines = [
    f'{plan["config"]}, {plan["program"]}, on {_place(plan)}'
    f' = {plan["chips"]} chips, mesh {plan["mesh"]}',
    f'FLOPs a step    model {plan["model_flops_per_step"]:.3g}, hardware '
    f'{plan["hardware_flops_per_step"]:.3g}, remat factor '
    f'{plan["remat_factor"]:.2f}',
  ]
  parts = plan['hbm_components_gib']
  width = max(map(len, parts))
  lines += [f'  {name:{width}} {gib:8.2f} GiB' for name, gib in parts.items()]
  if not plan['fits']:
    return '\n'.join(
      [
        *lines,
        f'does not fit: {plan["hbm_over_gib"]:.2f} GiB a chip over the '
        f'{plan["hbm_limit_gib"]:.2f} GiB available',
        f'compiled in {plan["compile_s"]:.0f} s',
      ]
    )
  seconds = plan['roofline_s']
  lines += [
    f'HBM             {plan["hbm_gib_per_chip"]:.2f} of '
    f'{plan["hbm_limit_gib"]:.2f} GiB a chip',
    'at least        '
    + ', '.join(f'{name} {1e3 * s:.1f} ms' for name, s in seconds.items()),
    f'bound by        {plan["bound_by"]}: MFU <= '
    f'{100 * plan["mfu_bound"]:.0f} %, {plan["images_per_s"]:.0f} images/s',
  ]
  if plan['chip_hours']:
    lines.append(
      f'the whole run   at least {plan["chip_hours"]:,.0f} chip-hours'
    )
  return '\n'.join([*lines, f'compiled in     {plan["compile_s"]:.0f} s'])


def table(plans: Iterable[Plan]) -> str:
  """A Markdown table, one row a plan."""
  rows = [_COLUMNS, ('---',) * len(_COLUMNS), *map(_row, plans)]
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows) + '\n'


def _row(plan: Plan) -> tuple[str, ...]:
  start = (
    f'{plan["config"]}, {plan["program"]}',
    _place(plan),
    str(plan['chips']),
    str(plan['batch']),
    plan['mesh'],
    plan['remat'],
    str(plan['microbatches']),
  )
  factor = f'{plan["remat_factor"]:.2f}'
  if not plan['fits']:
    over = f'+{plan["hbm_over_gib"]:.1f}, does not fit'
    return (*start, over, factor, '', '', '', '')
  return (
    *start,
    f'{plan["hbm_gib_per_chip"]:.1f} of {plan["hbm_limit_gib"]:.1f}',
    factor,
    f'{100 * plan["mfu_bound"]:.0f} %',
    plan['bound_by'],
    f'{plan["images_per_s"]:,.0f}',
    f'{plan["chip_hours"]:,.0f}' if plan['chip_hours'] else '',
  )


def _place(plan: Plan) -> str:
  times = f'{plan["slices"]} x ' if plan['slices'] > 1 else ''
  return f'{times}{plan["topology"]}'
