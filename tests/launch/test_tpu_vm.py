"""launch/tpu_vm.sh against a gcloud whose workers are folders."""

import os
import shlex
import shutil
import signal

import pytest

from tests.launch import fake_gcloud
from tests.launch.tpu_cloud import JOB, NAME, Cloud

pytestmark = pytest.mark.slow


@pytest.fixture
def cloud(tmp_path, monkeypatch):
  cloud = Cloud(tmp_path)
  monkeypatch.setattr(fake_gcloud, 'ROOT', cloud.gcloud)
  yield cloud
  for home in cloud.homes():
    fake_gcloud.kill(home)


def test_slices_from_nothing_to_done(cloud):
  output = cloud.succeed(
    'run', '--slices=2', '--spot', '--project=p', *cloud.command()
  )
  (created,) = cloud.calls('queued-resources create')
  assert created == [
    NAME,
    '--accelerator-type=v6e-8',
    '--runtime-version=v2-alpha-tpuv6e',
    '--node-count=2',
    f'--node-prefix={NAME}',
    '--spot',
    '--zone=us-east5-b',
    '--quiet',
    '--project=p',
  ]
  everywhere = cloud.calls('queued-resources ssh')
  everywhere += cloud.calls('queued-resources scp')
  assert all({'--node=all', '--worker=all'} <= set(c) for c in everywhere)
  names = [f'pod-{i}-w-{j}' for i in (0, 1) for j in (0, 1)]
  assert cloud.starts() == [f'{name} 0 a b' for name in names]
  for home in cloud.homes():
    assert (home / 'unifluid_jax' / 'job.py').read_text() == JOB
    assert not (home / 'unifluid_jax' / 'junk.txt').exists()
    assert (home / 'extras').read_text() == 'tpu\n'
  assert 'uncommitted changes are NOT sent' in output
  assert ', A job\n' in output
  assert 'WAITING_FOR_RESOURCES' in output
  assert 'done on all workers' in output


@pytest.mark.parametrize(
  ('kind', 'runtime'),
  [
    ('v4-32', 'tpu-ubuntu2204-base'),
    ('v5litepod-256', 'v2-alpha-tpuv5-lite'),
    ('v5p-128', 'v2-alpha-tpuv5'),
    ('v6e-256', 'v2-alpha-tpuv6e'),
  ],
)
def test_software_version_by_type(cloud, kind, runtime):
  cloud.succeed('create', f'--type={kind}')
  (created,) = cloud.calls('queued-resources create')
  assert f'--runtime-version={runtime}' in created
  assert f'--node-id={NAME}' in created


@pytest.mark.parametrize(
  ('value', 'spot'),
  [('', False), ('0', False), ('false', False), ('1', True), ('true', True)],
)
def test_spot_by_the_environment(cloud, monkeypatch, value, spot):
  monkeypatch.setenv('TPU_SPOT', value)
  assert (' --spot ' in cloud.succeed('create', '--dry-run')) == spot


def test_spot_that_is_neither_yes_nor_no(cloud, monkeypatch):
  monkeypatch.setenv('TPU_SPOT', 'ja')
  assert "TPU_SPOT is 'ja'" in cloud.fail('create', '--dry-run')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['create', '--type=v9-8'], "--type is 'v9-8'"),
    (['create', '--name='], 'which TPU?'),
    (['create', '--zone='], 'where is it?'),
    (['create', '--name=my pod'], "--name is 'my pod'"),
    (['create', '--zone=us-east5'], "--zone is 'us-east5'"),
    (['create', '--slices=0'], "--slices is '0'"),
    (['create', f'--slices={10**30}'], 'it must be a number from 1 to 256'),
    (['create', '--slices=257'], 'it must be a number from 1 to 256'),
    (['create', '--slices=08'], "--slices is '08'"),
    (['create', '--type=v6e-0'], "--type is 'v6e-0'"),
    (['create', '--type=v6e', '--runtime=x'], "--type is 'v6e'"),
    (['create', f'--name={"a" * 64}'], 'has 64 letters'),
    (['create', f'--name={"a" * 62}', '--slices=2'], 'a-1 has 64 letters'),
    (['create', '--project=a b'], "--project is 'a b'"),
    (['create', '--runtime=a b'], "--runtime is 'a b'"),
    (['create', '--name', 'pod'], '--name needs its value in the same word'),
    (['logs', '--worker=x'], "--worker is 'x'"),
    (['logs', f'--worker={10**30}'], 'it must be the number of a worker'),
    (['logs', '--slice=1'], "--slice is '1'; it must be a number from 0 to 0"),
    (['create', '--sopt'], 'unknown argument --sopt'),
    (['creat'], 'unknown command creat'),
    (['run'], 'what shall run?'),
  ],
)
def test_mistakes(cloud, arguments, message):
  assert message in cloud.fail(*arguments)
  assert not cloud.calls('queued-resources create')


def test_names_of_63_letters(cloud):
  for flags in ([f'--name={"a" * 63}'], [f'--name={"a" * 61}', '--slices=2']):
    assert f' create {"a" * 61}' in cloud.succeed('create', '--dry-run', *flags)


@pytest.mark.parametrize('command', ['create', 'run', 'logs', 'delete'])
def test_help_of_a_command(cloud, monkeypatch, command):
  monkeypatch.setenv('TPU_NAME', '')
  assert '--slices=N' in cloud.succeed(command, '--help')
  assert not cloud.calls()


@pytest.mark.parametrize(
  ('fault', 'message'),
  [
    ('quota', "Quota limit 'TPUV6EPerProjectPerZone' has been exceeded"),
    ('no permission', 'PERMISSION_DENIED: tpu.nodes.create'),
  ],
)
def test_refused_is_final(cloud, fault, message):
  cloud.plan_faults(fault)
  output = cloud.fail('create')
  assert message in output
  assert 'iam-admin/quotas' in output
  assert len(cloud.calls('queued-resources create')) == 1


def test_errors_that_pass(cloud):
  cloud.succeed('create')
  cloud.edit(states=['SUSPENDED'])
  cloud.plan_faults('no delete', 'no delete', 'no create', 'no create')
  output = cloud.succeed('create')
  assert 'attempt 2 of 5: ERROR: DEADLINE_EXCEEDED: try again' in output
  assert 'attempt 2 of 5: ERROR: UNAVAILABLE: try again later' in output
  assert len(cloud.calls('queued-resources delete')) == 3
  assert len(cloud.calls('queued-resources create')) == 4


def test_quotas_of_calls_pass(cloud):
  cloud.plan_faults('calls per minute')
  assert "'Mutate requests per minute'" in cloud.succeed('create')
  assert len(cloud.calls('queued-resources create')) == 2


@pytest.mark.parametrize('fault', ['quota', 'calls per minute'])
def test_no_quota_keeps_a_tpu(cloud, fault):
  cloud.succeed('create')
  cloud.plan_faults(fault)
  cloud.succeed('delete', '--yes')
  assert len(cloud.calls('queued-resources delete')) == 2


def test_errors_that_do_not_pass(cloud):
  cloud.plan_faults(*['no create'] * 9)
  output = cloud.fail('create')
  assert 'attempt 5 of 5: ERROR: UNAVAILABLE' in output
  assert f'gcloud cannot create {NAME}' in output


def test_created_once(cloud):
  cloud.succeed('create')
  cloud.succeed('create')
  assert len(cloud.calls('queued-resources create')) == 1


def test_created_by_somebody_else_meanwhile(cloud):
  cloud.plan_faults('created by another', 'no answer')
  cloud.succeed('create')
  assert not cloud.faults()


def test_no_answer_now_and_then(cloud):
  cloud.succeed('create')
  cloud.edit(states=['WAITING_FOR_RESOURCES'])
  process = cloud.start('create')
  for _ in range(3):
    cloud.plan_faults('no answer', 'no answer')
    cloud.wait(lambda: not cloud.faults())
    answered = len(cloud.calls()) + 2
    cloud.wait(lambda end=answered: len(cloud.calls()) >= end)
  cloud.edit(states=['ACTIVE'])
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  assert 'pod is UNKNOWN' in output


def test_lost_before_use(cloud):
  cloud.succeed('create')
  cloud.edit(states=['SUSPENDING', 'SUSPENDED'])
  cloud.succeed('create')
  assert len(cloud.calls('queued-resources delete')) == 1
  assert len(cloud.calls('queued-resources create')) == 2


@pytest.mark.parametrize('whose', ['own', 'an earlier one'])
def test_deleted_in_the_queue_is_not_asked_for_again(cloud, whose):
  cloud.plan_faults('no capacity')
  if whose != 'own':
    process = cloud.start('create')
    cloud.wait_for_looks(2)
    process.kill()
    process.communicate(timeout=120)
  process = cloud.start('create')
  cloud.wait_for_looks(3)
  cloud.succeed('delete', '--yes')
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 1
  assert f'{NAME} was deleted while it was waited for' in output
  assert len(cloud.calls('queued-resources create')) == 1


def test_asked_for_after_a_delete_under_way(cloud):
  cloud.succeed('create')
  cloud.edit(states=['DELETING'])
  process = cloud.start('create', '--spot')
  cloud.wait_for_looks(2)
  cloud.succeed('delete', '--yes')
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  assert len(cloud.calls('queued-resources create')) == 2


def test_request_fails(cloud):
  cloud.plan_faults('request fails')
  assert f'the request for {NAME} has failed' in cloud.fail('create')


@pytest.mark.parametrize('told', ['by the resource', 'by the node'])
def test_preempted(cloud, told):
  process = cloud.run_and_hold()
  if told == 'by the resource':
    cloud.edit(states=['SUSPENDED'])
  else:
    cloud.edit(nodes={NAME: 'PREEMPTED'})
  fake_gcloud.take_away(NAME)
  cloud.release()
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  assert 'beginning anew, from the last checkpoint' in output
  assert len(cloud.calls('queued-resources create')) == 2
  assert cloud.starts() == [
    f'pod-w-{worker} {step} a b' for worker in (0, 1) for step in (0, 3)
  ]
  assert cloud.steps() == ['5', '5']


def test_node_deleted_by_hand(cloud):
  process = cloud.run_and_hold()
  cloud.edit(nodes={})
  fake_gcloud.take_away(NAME)
  cloud.release()
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  assert f'{NAME} is PREEMPTED; beginning anew' in output
  assert len(cloud.calls('queued-resources create')) == 2
  assert cloud.steps() == ['5', '5']


@pytest.mark.parametrize(
  ('state', 'flags', 'other', 'message'),
  [
    ('ACTIVE', [], ['--slices=2'], '1 x v6e-8, and the flags ask for 2 x'),
    ('SUSPENDED', ['--slices=2'], [], '2 x v6e-8, and the flags ask for 1 x'),
    ('PROVISIONING', [], ['--type=v6e-16'], 'the flags ask for 1 x v6e-16:'),
    ('WAITING_FOR_RESOURCES', [], ['--spot'], 'ask for 1 x v6e-8, spot:'),
    ('SUSPENDING', ['--spot'], [], 'spot, and the flags ask for 1 x v6e-8:'),
  ],
)
def test_another_tpu_than_there_is(cloud, state, flags, other, message):
  cloud.succeed('create', *flags)
  cloud.edit(states=[state])
  output = cloud.fail('create', *other)
  assert message in output
  assert 'delete it first' in output
  assert not cloud.calls('queued-resources delete')
  assert len(cloud.calls('queued-resources create')) == 1


def test_the_type_of_what_is_there_need_not_be_told(cloud):
  flags = ['--slices=2', '--spot']
  cloud.succeed('create', *flags)
  cloud.succeed('create', '--type=', *flags)


def test_other_slices_are_not_taken_for_lost(cloud):
  cloud.succeed('create')
  cloud.plan_faults('unreachable')
  cloud.succeed('setup', '--slices=2')
  assert 'ACTIVE' in cloud.succeed('status', '--slices=2')


def test_machine_told_to_go_down_and_still_there(cloud):
  process = cloud.run_and_hold()
  for home in cloud.homes():
    group = int((home / 'unifluid_run' / 'group').read_text())
    os.killpg(group, signal.SIGTERM)
  cloud.release()
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  assert 'interrupted; starting it again' in output
  assert len(cloud.calls('queued-resources create')) == 1
  assert cloud.steps() == ['5', '5']


def test_node_under_repair(cloud):
  process = cloud.run_and_hold()
  with cloud.unwatched(process):
    cloud.edit(nodes={NAME: 'REPAIRING'})
    cloud.lose(*cloud.homes())
  cloud.wait_for_looks(4)
  assert len(cloud.calls('queued-resources scp')) == 1
  cloud.edit(nodes={NAME: 'READY'})
  cloud.release()
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  assert f'{NAME} is REPAIRING' in output
  assert 'interrupted; starting it again' in output
  assert len(cloud.calls('queued-resources create')) == 1
  assert cloud.steps() == ['5', '5']


def test_others_fail_while_a_worker_is_out_of_reach(cloud):
  process = cloud.run_and_hold()
  with cloud.unwatched(process):
    cloud.plan_faults(*['unreachable'] * 3)
    cloud.lose(*cloud.homes())
  cloud.release()
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  assert 'does not answer' in output
  assert 'interrupted; starting it again' in output
  assert cloud.steps() == ['5', '5']


def test_a_worker_that_stays_away_hides_no_failure(cloud):
  process = cloud.run_and_hold()
  with cloud.unwatched(process):
    # Some more than it is waited for, and than it takes to end the job.
    cloud.plan_faults(*['unreachable'] * 22)
    cloud.lose(cloud.homes()[0])
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 1, output
  assert 'does not answer' in output
  assert 'the job has failed' in output


def test_others_fail_when_a_worker_restarts(cloud):
  process = cloud.run_and_hold()
  one, other = cloud.homes()
  with cloud.unwatched(process):
    fake_gcloud.kill(other)
    cloud.lose(one)
  cloud.release()
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  assert 'interrupted; starting it again' in output
  assert cloud.steps() == ['5', '5']


def test_worker_restarts_with_another_disk(cloud):
  process = cloud.run_and_hold()
  home = cloud.homes()[1]
  with cloud.unwatched(process):
    fake_gcloud.kill(home)
    shutil.rmtree(home)
    home.mkdir()
  cloud.wait(lambda: len(cloud.starts()) == 4)
  cloud.release()
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  assert 'on some of the workers only' in output
  assert cloud.steps() == ['5', '5']


def test_deleted_by_its_user_is_not_created_again(cloud):
  process = cloud.run_and_hold()
  cloud.succeed('delete', '--yes')
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 1
  assert f'there is no TPU {NAME}' in output
  assert len(cloud.calls('queued-resources create')) == 1


@pytest.mark.parametrize('fault', ['unreachable', 'truncated'])
def test_copy_fails_in_part(cloud, fault):
  cloud.succeed('create')
  cloud.plan_faults(fault)
  cloud.succeed('setup')
  assert len(cloud.calls('queued-resources scp')) == 2
  for home in cloud.homes():
    assert (home / 'unifluid_jax' / 'job.py').read_text() == JOB


def test_worker_stays_out_of_reach(cloud):
  cloud.succeed('create')
  cloud.plan_faults(*['unreachable'] * 9)
  output = cloud.fail('setup')
  assert 'attempt 5 of 5' in output
  assert 'install does not succeed on all workers' in output


def test_worker_out_of_reach_until_its_node_is_repaired(cloud):
  cloud.succeed('create')
  cloud.edit(nodes={NAME: 'RESTARTING'})
  cloud.plan_faults(*['unreachable'] * 7)
  assert f'{NAME}: REPAIRING\n' in cloud.fail('status')
  cloud.succeed('setup')
  assert not cloud.faults()


def test_worker_out_of_reach_for_a_while(cloud):
  process = cloud.run_and_hold()
  cloud.plan_faults(*['unreachable'] * 3)
  cloud.wait(lambda: not cloud.faults())
  cloud.release()
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  assert len(cloud.starts()) == 2
  # What gcloud says, once.
  why = 'ERROR: (gcloud.compute.tpus) a worker has failed; looking again'
  assert output.count(f'a worker of {NAME} does not answer: {why}') == 1


def test_start_fails_in_part(cloud):
  cloud.plan_faults('no start')
  process = cloud.run_and_hold()
  cloud.release()
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  assert len(cloud.starts()) == 2
  assert 'attempt 1 of 5' in output


def test_run_twice_is_one_job(cloud):
  cloud.run_and_leave()
  second = cloud.start('run', *cloud.command())
  cloud.wait(lambda: sum('start' in ' '.join(c) for c in cloud.calls()) >= 2)
  assert 'does something else' in cloud.fail('run', *cloud.command(7))
  assert 'a job is running' in cloud.fail('setup')
  cloud.release()
  output, _ = second.communicate(timeout=120)
  assert second.returncode == 0, output
  assert 'runs it already' in output
  assert len(cloud.starts()) == 2


def test_stopped_and_gone_on(cloud):
  process = cloud.run_and_hold()
  assert 'unifluid 3/5  loss 0.5' in cloud.succeed('status')
  output = cloud.succeed('stop')
  assert 'worker pod-w-0 stopped: unifluid 4/5' in output
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0
  assert 'stopped; the same command goes on from there' in output
  cloud.release()
  cloud.succeed('run', *cloud.command())
  assert cloud.steps() == ['5', '5']
  assert cloud.starts()[1] == 'pod-w-0 4 a b'


def test_what_jobs_have_made_stays(cloud):
  old = cloud.checkout / 'old' / 'a file é.py'
  old.parent.mkdir()
  old.touch()
  cloud.commit('More')
  process = cloud.run_and_hold()
  cloud.succeed('stop')
  process.communicate(timeout=120)
  codes = [home / 'unifluid_jax' for home in cloud.homes()]
  assert all((code / 'old' / old.name).exists() for code in codes)
  old.unlink()
  cloud.commit('Less')
  cloud.release()
  cloud.succeed('run', *cloud.command())
  for code in codes:
    made = sorted(path.name for path in (code / 'runs' / 'x').iterdir())
    assert made == ['0', '4']
    assert not (code / 'old' / old.name).exists()
    assert (code / 'job.py').read_text() == JOB


def test_failed_on_one_worker(cloud):
  (cloud.bucket / 'broken').touch()
  (cloud.bucket / 'hold').touch()
  output = cloud.fail('run', *cloud.command())
  assert 'worker pod-w-1 failed(1): no such key' in output
  assert 'pod-w-0 stopped' in cloud.succeed('status')
  (cloud.bucket / 'broken').unlink()
  cloud.release()
  cloud.succeed('run', *cloud.command())


def test_runs_on_some_workers_only(cloud):
  cloud.run_and_leave()
  fake_gcloud.kill(cloud.homes()[1])
  second = cloud.start('run', *cloud.command())
  cloud.wait(lambda: len(cloud.starts()) == 4)
  cloud.release()
  output, _ = second.communicate(timeout=120)
  assert second.returncode == 0, output
  assert 'on some of the workers only' in output


def test_status(cloud):
  assert cloud.succeed('status') == f'{NAME}: ABSENT\n'
  cloud.succeed('run', *cloud.command())
  cloud.plan_faults('unreachable')
  output = cloud.fail('status')
  assert f'{NAME}: ACTIVE\nworker pod-w-0 done: unifluid 5/5' in output
  assert 'not every worker answers' in output
  cloud.plan_faults('no answer')
  assert 'the state of pod: ERROR: UNAVAILABLE' in cloud.fail('status')


def test_logs_of_a_chosen_worker(cloud):
  cloud.succeed('run', '--slices=2', *cloud.command())
  process = cloud.start('logs', '--slices=2', '--slice=1', '--worker=1')
  read = ''
  while 'unifluid 5/5' not in read:
    read += process.stdout.readline()
  process.terminate()
  assert f'job.py {cloud.bucket} 5 a\\ b' in read
  (call,) = [c for c in cloud.calls('queued-resources ssh') if '--node=1' in c]
  assert '--worker=1' in call


@pytest.mark.parametrize(
  ('flags', 'answer', 'deleted'),
  [([], 'n\n', 0), ([], '', 0), ([], 'y\n', 1), (['--yes'], '', 1)],
)
def test_delete_asks(cloud, flags, answer, deleted):
  cloud.succeed('create')
  code, output = cloud.call('delete', *flags, stdin=answer)
  assert code == 1 - deleted, output
  calls = cloud.calls('queued-resources delete')
  assert calls == [[NAME, '--force', '--zone=us-east5-b', '--quiet']] * deleted


@pytest.mark.parametrize(
  ('arguments', 'verbs'),
  [
    (['create'], ['describe', 'create', 'describe', 'describe']),
    (['setup'], ['scp', 'ssh']),
    (
      ['run'],
      ['describe', 'create', 'describe', 'describe']
      + ['ssh', 'scp', 'ssh', 'ssh', 'ssh'],
    ),
    (['status'], ['describe', 'describe', 'ssh']),
    (['logs'], ['ssh']),
    (['stop'], ['ssh', 'ssh']),
    (['delete'], ['delete']),
  ],
)
def test_dry_run_prints_and_does_nothing(cloud, arguments, verbs):
  command = cloud.command() if arguments == ['run'] else []
  output = cloud.succeed(*arguments, '--dry-run', *command)
  lines = [shlex.split(x) for x in output.splitlines() if x[:6] == 'gcloud']
  assert [line[4] for line in lines] == verbs
  assert not cloud.calls()
