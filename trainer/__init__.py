"""Fine-tunes a BERT on labelled reviews and exports it as a versioned artefact that the worker serves.

Cleaning, tokens, network and engine are the worker's own, so that training and serving cannot drift apart.
"""

import worker as worker  # for the environment that TensorFlow finds
