fn main() {
    let schema = schemars::schema_for!(alcedo_pipeline::file::Pipeline);
    println!("{}", serde_json::to_string_pretty(&schema).unwrap());
    for text in ["a: yes\nb: 0o17\nc: 1_000\nd: 1e3\ne: .nan\nf: 017\ng: 2026-01-01\nh: 0x1F\n8080: x\ni: 12345678901234567890123\nj: ~\nk:\nl: 1.10", "a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\nc: *x", "a: 1\na: 2", "a: !foo 1\nb: !!str 2", "- a\n\t- b", "a: *x"] {
        println!("{text:?} => {:?}", serde_yaml::from_str_value(text));
    }
}
