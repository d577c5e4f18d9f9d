//! The corpora of the parsers hold real encodings, as they are written today. A change of a wire
//! format shows here; `BLESS=1` writes the files anew.

#[test]
fn the_corpora_hold_the_encodings_of_today() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let bless = std::env::var_os("BLESS").is_some();
    for (target, name, bytes) in fuzz::samples() {
        let file = corpus.join(target).join(name);
        if bless {
            std::fs::create_dir_all(corpus.join(target)).expect("a writable folder");
            std::fs::write(&file, &bytes).expect("a writable folder");
        }
        let kept = std::fs::read(&file).expect("kept; BLESS=1 writes it");
        assert!(kept == bytes, "{} has changed", file.display());
    }
}
