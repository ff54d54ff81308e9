"""The worker process: consumes the queue, renders images and runs the periodic jobs."""
