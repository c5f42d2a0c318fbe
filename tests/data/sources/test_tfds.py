"""A TFDS data set in real ArrayRecord files, without TensorFlow."""

import io
import json
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_generated_pb2 as example_pb2
from tensorflow_datasets.proto import tf_feature_generated_pb2 as feature_pb2

from tests.configs import tiny
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.tasks import make_tasks
from unifluid_jax.data.sources import TfdsTask
from unifluid_jax.data.task import Task
from unifluid_jax.utils.errors import UserError

RNG = np.random.default_rng(0)
RECORDS = 4


def png(value: int, channels: int) -> bytes:
  pixels = np.full((6, 8, channels), value, np.uint8)
  data = io.BytesIO()
  PIL.Image.fromarray(pixels.squeeze()).save(data, 'PNG')
  return data.getvalue()


def cyan_photograph() -> bytes:
  """A CMYK JPEG, 6 high and 8 wide, to be turned by 90 degrees."""
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  image = PIL.Image.new('CMYK', (8, 6), (255, 0, 0, 0))
  data = io.BytesIO()
  image.save(data, 'JPEG', quality=100, exif=exif)
  return data.getvalue()


def serialize(i: int) -> bytes:
  """Record i as a tf.train.Example."""
  texts = {
    'image': [png(10 * i, 3)],
    'mask': [png(20 * i, 1)],
    'photograph': [cyan_photograph()],
    'caption': [f'number {i}'.encode()],
    'captions/text': [f'one {i}'.encode(), f'two {i}'.encode()],
  }
  numbers = {'label': [i % 2], 'captions/id': [1, 2]}
  # -1 is no class.
  numbers |= {'labels': [1, 0], 'objects/label': [i - 1] * (i != 3)}
  features = {
    name: feature_pb2.Feature(bytes_list=feature_pb2.BytesList(value=value))
    for name, value in texts.items()
  } | {
    name: feature_pb2.Feature(int64_list=feature_pb2.Int64List(value=value))
    for name, value in numbers.items()
  }
  depth = feature_pb2.FloatList(value=[0.5] * 12)
  features['depth'] = feature_pb2.Feature(float_list=depth)
  example = example_pb2.Example(features=feature_pb2.Features(feature=features))
  return example.SerializeToString()


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory) -> str:
  """Writes the data set 'shapes' as `tfds build` would."""
  root = tmp_path_factory.mktemp('tfds')
  home: pathlib.Path = root / 'shapes' / '1.0.0'
  home.mkdir(parents=True)
  tfds.features.FeaturesDict(
    {
      'image': tfds.features.Image(shape=(None, None, 3)),
      'mask': tfds.features.Image(shape=(None, None, 1)),
      'photograph': tfds.features.Image(shape=(None, None, 3)),
      'caption': tfds.features.Text(),
      'label': tfds.features.ClassLabel(names=['cat', 'dog']),
      'labels': tfds.features.Sequence(
        tfds.features.ClassLabel(names=['cat', 'dog'])
      ),
      'objects': tfds.features.Sequence(
        {'label': tfds.features.ClassLabel(names=['cat', 'dog', 'fox'])}
      ),
      'depth': tfds.features.Tensor(shape=(2, 2, 3), dtype=np.float32),
      'captions': tfds.features.Sequence(
        {'text': tfds.features.Text(), 'id': np.int64}
      ),
    }
  ).save_config(str(home))
  file = home / 'shapes-train.array_record-00000-of-00001'
  writer = array_record_module.ArrayRecordWriter(str(file), 'group_size:1')
  for i in range(RECORDS):
    writer.write(serialize(i))
  writer.close()
  split = {
    'name': 'train',
    'shardLengths': [str(RECORDS)],
    'numBytes': str(file.stat().st_size),
    'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
  }
  info = {
    'name': 'shapes',
    'version': '1.0.0',
    'fileFormat': 'array_record',
    'splits': [split],
  }
  (home / 'dataset_info.json').write_text(json.dumps(info))
  return str(root)


def test_captioning_with_several_references(data_dir):
  features = {'text': 'captions/text'}
  task = TfdsTask('shapes', 'train', 'captioning', 4, features, data_dir)
  assert isinstance(task, Task)
  assert len(task) == RECORDS
  example = task.build(task[3], RNG, augment=False)
  image, prompt = example.prefix
  assert image.shape[-1] == 3 and (image == 30).all()
  assert (prompt, example.target) == ('caption en', 'one 3')
  assert example.facts == {'references': ('one 3', 'two 3')}
  assert example.place == "the TFDS data set 'shapes', split 'train', record 3"
  drawn = {task.build(task[3], RNG, True).target for _ in range(20)}
  assert drawn == {'one 3', 'two 3'}


def test_a_class_label_reads_as_its_name(data_dir):
  features = {'question': 'caption', 'answer': 'label'}
  task = TfdsTask('shapes', 'train', 'vqa', 4, features, data_dir)
  example = task.build(task[1], RNG, augment=False)
  assert example.prefix[1] == 'answer en number 1'
  assert example.target == 'dog'


@pytest.mark.parametrize(
  ('feature', 'texts'),
  [
    ('labels', [('dog', 'cat')] * 4),
    ('objects/label', [None, ('cat',), ('dog',), None]),
  ],
)
def test_class_labels_of_a_sequence_and_of_no_class(feature, texts, data_dir):
  task = TfdsTask(
    'shapes', 'train', 'captioning', 4, {'text': feature}, data_dir
  )
  for i, wanted in enumerate(texts):
    if wanted is None:
      with pytest.raises(
        UserError, match=f"record {i} has no text for .*'text"
      ):
        task.build(task[i], RNG, augment=False)
    else:
      example = task.build(task[i], RNG, augment=False)
      assert example.facts['references'] == wanted


def test_what_is_no_image_of_8_bits_is_told(data_dir):
  features = {'image': 'depth', 'text': 'caption'}
  task = TfdsTask('shapes', 'train', 'captioning', 4, features, data_dir)
  told = r"record 1: 'image' is float32 of shape \(2, 2, 3\); it must be uint8"
  with pytest.raises(UserError, match=told):
    task.build(task[1], RNG, augment=False)


def test_numbers_read_as_texts_and_gray_images_as_rgb(data_dir):
  features = {'source': 'mask', 'instruction': 'captions/id'}
  task = TfdsTask('shapes', 'train', 'editing', 4, features, data_dir)
  source, prompt = task.build(task[2], RNG, augment=False).prefix
  assert source.shape[-1] == 3 and (source == 40).all()
  assert prompt == 'edit 1'


def test_image_files_are_decoded_as_those_of_a_folder(data_dir):
  features = {'image': 'photograph', 'text': 'caption'}
  task = TfdsTask('shapes', 'train', 'captioning', 4, features, data_dir)
  image = task.read_image(task[0], 'image')
  assert image.shape == (8, 6, 3)
  np.testing.assert_allclose(image, np.full((8, 6, 3), [0, 255, 255]), atol=3)
  limited = TfdsTask('shapes', 'train', 'captioning', 4, features, data_dir, 47)
  told = r"record 1: 'image' has 48 pixels, .* 47; .* raise data\.max_pixels"
  with pytest.raises(UserError, match=told):
    limited.build(limited[1], RNG, augment=False)


def test_a_part_of_a_split(data_dir):
  features = {'text': 'caption'}
  task = TfdsTask(
    'shapes:1.0.0', 'train[50%:]', 'text_to_image', 4, features, data_dir
  )
  assert len(task) == 2
  assert task.build(task[0], RNG, False).prefix == ('number 2',)


def test_survives_the_way_to_a_worker(data_dir):
  task = TfdsTask(
    'shapes', 'train', 'text_to_image', 4, {'text': 'caption'}, data_dir
  )
  copy = pickle.loads(pickle.dumps(task))
  assert copy.build(copy[1], RNG, False).prefix == ('number 1',)


@pytest.mark.parametrize(
  ('name', 'split', 'features', 'message'),
  [
    ('shapes', 'test', {}, r"split 'test' .*'shapes' in .*: Unknown split"),
    ('no_such_set', 'train', {}, 'no_such_set not found. Prepare it with'),
    ('mnist', 'train', {}, 'not been generated yet.*tfds build'),
    ('shapes', 'train', {}, "no feature 'text' for the key 'text'.*'caption'"),
    ('shapes', 'train', {'text': 'captions/x'}, "no feature 'captions/x'"),
    ('shapes', 'train', {'text': 'caption/x'}, "no feature 'caption/x'"),
  ],
)
def test_errors(data_dir, name, split, features, message):
  with pytest.raises(UserError, match=message):
    TfdsTask(name, split, 'captioning', 4, features, data_dir)


def test_a_config_says_where_data_sets_are(data_dir):
  config = tiny.get_config()
  config.data.sources.mine = {
    'kind': 'tfds',
    'task': 'text_to_image',
    'path': 'shapes',
    'weight': 1.0,
    'features': {'text': 'caption'},
    'data_dir': data_dir,
  }
  experiment = build(Experiment, config)
  (task,) = make_tasks(
    experiment, {'mine': experiment.data.sources['mine']}
  ).values()
  assert task.build(task[1], RNG, False).prefix == ('number 1',)


def test_the_pipeline_imports_neither_tensorflow_nor_tfds():
  program = (
    'import sys, unifluid_jax.data.sources, unifluid_jax.data.pipeline\n'
    'heavy = {"tensorflow", "tensorflow_datasets", "torch", "transformers"}\n'
    'assert not heavy & set(sys.modules), heavy & set(sys.modules)'
  )
  subprocess.run([sys.executable, '-c', program], check=True)
