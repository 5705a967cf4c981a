//! What a program asks of the dynamic linker: read from its ELF file.

use object::{
    Endianness, elf,
    read::elf::{Dyn, FileHeader},
};

/// The first bytes of every ELF file.
pub const MAGIC: [u8; 4] = *b"\x7fELF";

/// A program's or a library's needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// As `uname -m` calls it; `None` for machines that have no such name here.
    pub architecture: Option<&'static str>,
    /// `DT_NEEDED`: the shared libraries it names. Empty for a static program.
    pub libraries: Vec<String>,
    /// `DT_RUNPATH`, else `DT_RPATH`: where it looks first.
    pub search_paths: Vec<String>,
}

/// The needs of an ELF file, or `None` for bytes that are not a whole one.
pub fn needs(bytes: &[u8]) -> Option<Needs> {
    match *bytes.get(4)? {
        elf::ELFCLASS64 => read(elf::FileHeader64::<Endianness>::parse(bytes).ok()?, bytes),
        elf::ELFCLASS32 => read(elf::FileHeader32::<Endianness>::parse(bytes).ok()?, bytes),
        _ => None,
    }
}

fn read<Elf: FileHeader>(header: &Elf, bytes: &[u8]) -> Option<Needs> {
    let endian = header.endian().ok()?;
    let mut needs = Needs { architecture: architecture(header.e_machine(endian)), ..Needs::default() };
    let sections = header.sections(endian, bytes).ok()?;
    let Some((entries, strings)) = sections.dynamic(endian, bytes).ok()? else { return Some(needs) };
    let strings = sections.strings(endian, bytes, strings).ok()?;
    let (mut runpath, mut rpath) = (Vec::new(), Vec::new());
    for entry in entries {
        let into = match entry.tag32(endian) {
            Some(elf::DT_NULL) => break,
            Some(elf::DT_NEEDED) => &mut needs.libraries,
            Some(elf::DT_RUNPATH) => &mut runpath,
            Some(elf::DT_RPATH) => &mut rpath,
            _ => continue,
        };
        into.push(String::from_utf8_lossy(entry.string(endian, strings).ok()?).into_owned());
    }
    let search = if runpath.is_empty() { rpath } else { runpath };
    needs.search_paths = search.iter().flat_map(|paths| paths.split(':')).map(str::to_owned).collect();
    Some(needs)
}

fn architecture(machine: u16) -> Option<&'static str> {
    match machine {
        elf::EM_X86_64 => Some("x86_64"),
        elf::EM_AARCH64 => Some("aarch64"),
        elf::EM_RISCV => Some("riscv64"),
        elf::EM_PPC64 => Some("ppc64le"),
        elf::EM_S390 => Some("s390x"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_program_names_its_libraries() {
        let needs = needs(&std::fs::read("/proc/self/exe").unwrap()).unwrap();
        assert_eq!(needs.architecture, Some(std::env::consts::ARCH));
        assert!(needs.libraries.iter().any(|name| name == "libc.so.6"), "{needs:?}");
    }

    #[test]
    fn damaged_files_are_none_and_never_a_panic() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        for length in [0, 3, 4, 5, 16, 63, 64, 1000] {
            assert_eq!(needs(&whole[..length]), None, "{length}");
        }
        let mut strange = whole[..4096].to_vec();
        for at in 0..strange.len() {
            let kept = strange[at];
            strange[at] = 0xff;
            let _ = needs(&strange);
            strange[at] = kept;
        }
    }
}
