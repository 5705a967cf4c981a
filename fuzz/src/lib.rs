//! What the fuzz targets look for, and what they begin with. A target is a loop around one of these modules.

pub mod archive;
pub mod archive_mutations;
pub mod archive_seeds;
pub mod corpus;
pub mod file;
pub mod file_seeds;
pub mod tree;
