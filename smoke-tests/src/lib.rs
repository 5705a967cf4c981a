//! smoke-tests
