"""The one exception that stands for a user's mistake."""


class UserError(Exception):
  """A wrong config, record, file or checkpoint, told in one message.

  The message names the thing that is wrong and the mend. Entry points print
  it without a traceback and exit with code 1.
  """
