"""Scores a stream of reviews: Kafka in, Kafka out, each once.

TensorFlow, Keras and transformers read their environment while they are imported, whoever imports them. So it is set
here, and `trainer` begins with this package: before any module of the two can bring them in. The user's own setting
wins.
"""

import os

# Start-up chatter is not the user's business.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

# TensorFlow leaves oneDNN out on CPUs without AVX-512, where it helps just as much: it keeps the memory of a training
# step for the next one.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# The network runs on more than one backend; the engine for JAX says so before it brings Keras in.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
