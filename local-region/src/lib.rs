//! local-region
