"""The worker: takes images off the queue, and mends what crashes left behind."""
