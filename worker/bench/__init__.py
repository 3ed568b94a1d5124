"""`review-worker bench`: how fast this machine scores, the engine alone and the whole route."""
