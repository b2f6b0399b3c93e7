//! Events and metrics.
