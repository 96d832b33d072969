//! The hearth binary: arguments, configuration, wiring, listeners, signals.
