//! Replays every kept input through its target, without a fuzzer.

#[test]
fn the_corpus_breaks_nothing() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in fuzz::targets() {
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpus.join(name)).expect("a folder for each target") {
            let path = entry.expect("readable").path();
            target(&std::fs::read(&path).expect("readable"));
            inputs += 1;
        }
        assert!(inputs >= 2, "corpus/{name} is empty");
    }
}
