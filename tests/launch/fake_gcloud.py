"""A `gcloud` for tests: its TPUs' workers are folders of this machine.

The folder $FAKE_GCLOUD holds `calls.jsonl` (the arguments of each call, a line
each), `faults.json` (what shall go wrong, see `Fault`), and for each queued
resource NAME `NAME.json` and the workers' home folders `NAME/NODE-w-WORKER`.

A queued resource becomes ACTIVE at the third look. What is sent by `ssh` is run
in the worker's home folder; the end of the connection hangs up on it.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(os.environ.get('FAKE_GCLOUD', ''))
WORKERS = 2
"""Workers of a slice."""

# Of the synopses in Google's reference of gcloud, what may be used here.
FLAGS = {
  'queued-resources create': {
    'accelerator-type',
    'runtime-version',
    'node-id',
    'node-count',
    'node-prefix',
    'spot',
  },
  'queued-resources describe': {'format'},
  'queued-resources delete': {'force'},
  'queued-resources ssh': {'node', 'worker', 'command'},
  'queued-resources scp': {'node', 'worker'},
  'tpu-vm describe': {'format'},
}
ALWAYS = {'zone', 'project', 'quiet'}


class Failure(Exception):
  """What gcloud says before it ends with an exit code."""

  def __init__(self, message: str, code: int = 1):
    super().__init__(message)
    self.code = code


def fault(kind: str) -> bool:
  """Whether this is to go wrong now; each planned fault happens once."""
  file = ROOT / 'faults.json'
  faults = json.loads(file.read_text()) if file.exists() else []
  if kind not in faults:
    return False
  faults.remove(kind)
  file.write_text(json.dumps(faults))
  return True


def resource(name: str) -> dict:
  """The queued resource, or gcloud's complaint."""
  file = ROOT / f'{name}.json'
  if not file.exists():
    raise Failure(f'ERROR: (gcloud.compute.tpus) NOT_FOUND: {name}')
  return json.loads(file.read_text())


def write(name: str, value: dict) -> None:
  (ROOT / f'{name}.json').write_text(json.dumps(value))


def create(name: str, flags: dict[str, str]) -> None:
  if fault('no create'):
    raise Failure('ERROR: UNAVAILABLE: try again later')
  if fault('no permission'):
    raise Failure('ERROR: PERMISSION_DENIED: tpu.nodes.create on p')
  check_quotas()
  if (ROOT / f'{name}.json').exists():
    raise Failure(f'ERROR: ALREADY_EXISTS: {name}')
  assert ('node-id' in flags) != ('node-count' in flags), flags
  assert ('node-prefix' in flags) == ('node-count' in flags), flags
  if 'node-id' in flags:
    nodes = [flags['node-id']]
  else:
    count = int(flags['node-count'])
    nodes = [f'{flags["node-prefix"]}-{i}' for i in range(count)]
  for node in nodes:
    for worker in range(WORKERS):
      (ROOT / name / f'{node}-w-{worker}').mkdir(parents=True)
  last = 'FAILED' if fault('request fails') else 'ACTIVE'
  states = ['WAITING_FOR_RESOURCES', 'PROVISIONING', last]
  if fault('no capacity'):
    states = states[:1]
  value = {
    'states': states,
    'nodes': dict.fromkeys(nodes, 'READY'),
    'slices': len(nodes),
    'type': flags['accelerator-type'],
    'spot': 'spot' in flags,
  }
  write(name, value)
  if fault('created by another'):
    raise Failure(f'ERROR: ALREADY_EXISTS: {name}')


def check_quotas() -> None:
  """Complaints of both kinds, which come under the same name."""
  if fault('quota'):
    raise Failure(
      "ERROR: RESOURCE_EXHAUSTED: Quota limit 'TPUV6EPerProjectPerZone' has "
      'been exceeded. Limit: 0'
    )
  if fault('calls per minute'):
    raise Failure(
      "ERROR: RESOURCE_EXHAUSTED: Quota exceeded for quota metric 'Mutate "
      "requests' and limit 'Mutate requests per minute' of service "
      "'tpu.googleapis.com'"
    )


def describe(name: str) -> None:
  if fault('no answer'):
    raise Failure('ERROR: UNAVAILABLE: try again later')
  found = resource(name)
  sys.stdout.write(description(name, found))
  if found['states'][1:]:
    write(name, found | {'states': found['states'][1:]})


def description(name: str, found: dict) -> str:
  """Has the form of the examples in Google's documentation."""
  several = [
    '    multisliceParams:',
    f'      nodeCount: {found["slices"]}',
    f'      nodeIdPrefix: {name}',
  ]
  lines = [
    f'name: projects/p/locations/us-east5-b/queuedResources/{name}',
    *(['spot: {}'] if found['spot'] else []),
    'state:',
    f'  state: {found["states"][0]}',
    'tpu:',
    '  nodeSpec:',
    '  - parent: projects/p/locations/us-east5-b',
    *(several if found['slices'] > 1 else []),
    '    node:',
    f'      acceleratorType: {found["type"]}',
    '      schedulingConfig: {}',
  ]
  return '\n'.join(lines) + '\n'


def describe_node(node: str) -> None:
  for file in ROOT.glob('*.json'):
    found = json.loads(file.read_text())
    if isinstance(found, dict) and node in found['nodes']:
      sys.stdout.write(found['nodes'][node])
      return
  raise Failure(f'ERROR: NOT_FOUND: {node}')


def delete(name: str, flags: dict[str, str]) -> None:
  if fault('no delete'):
    raise Failure('ERROR: DEADLINE_EXCEEDED: try again later')
  check_quotas()
  if resource(name)['states'][0] == 'ACTIVE' and 'force' not in flags:
    raise Failure('ERROR: FAILED_PRECONDITION: its nodes are still there')
  take_away(name)
  (ROOT / f'{name}.json').unlink()


def take_away(name: str) -> None:
  """Machines and disks of a queued resource, gone without notice."""
  for home in (ROOT / name).glob('*'):
    kill(home)
    # Two may take the same machine away at the same moment.
    shutil.rmtree(home, ignore_errors=True)


def kill(home: pathlib.Path) -> None:
  """Ends the job of a worker at once."""
  group = home / 'unifluid_run' / 'group'
  if group.exists():
    try:
      os.killpg(int(group.read_text()), signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
      return


def workers(name: str, flags: dict[str, str]) -> Iterator[pathlib.Path]:
  """Home folders of the workers that are meant; 0 and 0 by default."""
  found = resource(name)
  if found['states'] != ['ACTIVE']:
    raise Failure(f'ERROR: {name} is not ACTIVE')
  if not found['nodes']:
    raise Failure(f'ERROR: NOT_FOUND: the node of {name}')
  node, worker = flags.get('node', '0'), flags.get('worker', '0')
  for i, each in enumerate(found['nodes']):
    for j in range(WORKERS):
      if node in ('all', str(i)) and worker in ('all', str(j)):
        yield ROOT / name / f'{each}-w-{j}'


def unreachable(home: pathlib.Path, command: str) -> bool:
  """The last worker of all is the one that may be out of reach."""
  last = home.name.endswith(f'-w-{WORKERS - 1}')
  return not home.exists() or (
    last
    and (fault('unreachable') or (' start ' in command and fault('no start')))
  )


def ssh(name: str, flags: dict[str, str]) -> None:
  code = 0
  for home in workers(name, flags):
    if unreachable(home, flags['command']):
      sys.stderr.write(f'ssh: connect to host {home.name}: timed out\n')
      code = 255
      continue
    with subprocess.Popen(
      ['bash', '-c', flags['command']],
      cwd=home,
      env=os.environ | {'HOME': str(home), 'HOSTNAME': home.name},
      stdin=subprocess.DEVNULL,
      start_new_session=True,
    ) as process:
      code = process.wait() or code
    try:
      os.killpg(process.pid, signal.SIGHUP)
    except ProcessLookupError:
      continue
  if code:
    raise Failure('ERROR: (gcloud.compute.tpus) a worker has failed', code)


def scp(sources: list[str], target: str, flags: dict[str, str]) -> None:
  name = target.removesuffix(':')
  for home in workers(name, flags):
    if unreachable(home, 'scp'):
      raise Failure(f'scp: {home.name}: Connection closed', 255)
    for source in sources:
      shutil.copy(source, home)
    if fault('truncated'):
      file = home / pathlib.Path(sources[0]).name
      file.write_bytes(file.read_bytes()[:-10])


def main(arguments: list[str]) -> None:
  with (ROOT / 'calls.jsonl').open('a') as file:
    file.write(json.dumps(arguments) + '\n')
  assert arguments[:2] == ['compute', 'tpus'], arguments
  verb = ' '.join(arguments[2:4])
  names = [a for a in arguments[4:] if not a.startswith('--')]
  pairs = [
    re.fullmatch(r'--([a-z-]+)(?:=(.*))?', a, re.DOTALL)
    for a in arguments[4:]
    if a.startswith('--')
  ]
  flags = {pair[1]: pair[2] or '' for pair in pairs if pair}
  unknown = flags.keys() - FLAGS[verb] - ALWAYS
  assert not unknown and 'zone' in flags and 'quiet' in flags, arguments
  match verb:
    case 'queued-resources create':
      create(names[0], flags)
    case 'queued-resources describe':
      describe(names[0])
    case 'queued-resources delete':
      delete(names[0], flags)
    case 'queued-resources ssh':
      ssh(names[0], flags)
    case 'queued-resources scp':
      scp(names[:-1], names[-1], flags)
    case 'tpu-vm describe':
      describe_node(names[0])


if __name__ == '__main__':
  try:
    main(sys.argv[1:])
  except Failure as failure:
    sys.stderr.write(f'{failure}\n')
    sys.exit(failure.code)
