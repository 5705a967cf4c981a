//! The instance types that the region offers, with the sizes that AWS's instance type pages publish.

/// Memory and processors of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceType {
    pub name: &'static str,
    pub vcpus: u32,
    pub memory_mib: u32,
    pub burstable: bool,
}

const fn size(name: &'static str, vcpus: u32, memory_mib: u32, burstable: bool) -> InstanceType {
    InstanceType { name, vcpus, memory_mib, burstable }
}

/// x86_64 types only: the engine's containers run on this machine's architecture.
pub const TYPES: [InstanceType; 22] = [
    size("t2.micro", 1, 1024, true),
    size("t2.small", 1, 2048, true),
    size("t2.medium", 2, 4096, true),
    size("t3.nano", 2, 512, true),
    size("t3.micro", 2, 1024, true),
    size("t3.small", 2, 2048, true),
    size("t3.medium", 2, 4096, true),
    size("t3.large", 2, 8192, true),
    size("t3.xlarge", 4, 16_384, true),
    size("t3a.nano", 2, 512, true),
    size("t3a.micro", 2, 1024, true),
    size("t3a.small", 2, 2048, true),
    size("t3a.medium", 2, 4096, true),
    size("t3a.large", 2, 8192, true),
    size("m5.large", 2, 8192, false),
    size("m5.xlarge", 4, 16_384, false),
    size("m6i.large", 2, 8192, false),
    size("c5.large", 2, 4096, false),
    size("c5.xlarge", 4, 8192, false),
    size("c6i.large", 2, 4096, false),
    size("r5.large", 2, 16_384, false),
    size("r6i.large", 2, 16_384, false),
];

/// The type of this name, if the region offers it.
pub fn find(name: &str) -> Option<InstanceType> {
    TYPES.into_iter().find(|known| known.name == name)
}
