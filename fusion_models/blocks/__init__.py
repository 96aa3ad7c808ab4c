"""The parts that systems are composed of."""
