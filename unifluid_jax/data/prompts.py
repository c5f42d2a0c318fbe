"""Task prefixes of prompts, as in PaliGemma (arXiv 2407.07726).

Text to image has no such words: its prompt is the description alone.
"""

CAPTION = 'caption en'
ANSWER = 'answer en {question}'
EDIT = 'edit {instruction}'
