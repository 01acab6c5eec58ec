//! `vaultctl` and the example program against the fake vault.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use tonic::Status;

use crate::fake::{self, Running, State};
use crate::pki::Pki;

pub(crate) struct Setup {
    pki: Pki,
    pub(crate) server: Running,
}

pub(crate) async fn setup() -> Setup {
    let pki = Pki::new();
    let server = fake::start(&pki, Arc::new(State::default())).await;
    write_profile(&pki, &server.uri());
    Setup { pki, server }
}

fn write_profile(pki: &Pki, uri: &str) {
    let text = format!(
        "endpoints = ['{uri}']\nca = 'ca.pem'\nenvironment = 'dev'\nidentity = 'service'\n\
         [identities.service]\ncertificate = 'client.pem'\nkey = 'client.key'\n"
    );
    std::fs::write(pki.path("profile.toml"), text).unwrap();
}

impl Setup {
    pub(crate) async fn run(&self, args: &[&str], stdin: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vaultctl"));
        command.arg("--profile").arg(self.pki.path("profile.toml")).args(args);
        run(command, stdin).await
    }

    fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.pki.path(name), text).unwrap();
        self.path(name)
    }

    /// From now on the vault is at these endpoints.
    pub(crate) fn use_endpoints(&self, uris: &[String]) {
        write_profile(&self.pki, &uris.join("', '"));
    }

    pub(crate) fn pki(&self) -> &Pki {
        &self.pki
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.pki.path(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.pki.path(name)).unwrap()
    }
}

async fn run(mut command: Command, stdin: &str) -> Output {
    let stdin = stdin.to_owned();
    let run = move || {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        // A command that reads nothing may be gone by now.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn a_value_goes_in_by_stdin_and_its_token_is_all_that_is_printed() {
    let setup = setup().await;
    let kept = setup.run(&["tokenize", "--class", "ssn", "--subject", "p1"], "999-12-3456\n").await;
    assert_eq!((code(&kept), err(&kept)), (0, String::new()));
    let token = out(&kept).trim_end().to_owned();
    assert!(token.starts_with("phi_dev_") && out(&kept).lines().count() == 1);
    let back = setup.run(&["detokenize", &token, "--purpose", "TREAT"], "").await;
    assert_eq!((code(&back), out(&back)), (0, "999-12-3456\n".to_owned()));
    let masked = setup.run(&["mask", &token], "").await;
    assert_eq!(out(&masked), "***\n");
    let found = setup.run(&["find", "--class", "ssn"], "999-12-3456").await;
    assert_eq!(out(&found).trim_end(), token);
    let known = setup.run(&["describe", &token, "--json"], "").await;
    let known: serde_json::Value = serde_json::from_slice(&known.stdout).unwrap();
    assert_eq!(known[0]["state"], "active");
    assert_eq!(known[0]["token"], *token);
    let erased = setup.run(&["erase", &token], "").await;
    assert!(out(&erased).contains("now"));
}

#[tokio::test]
async fn exit_codes_tell_what_happened() {
    let setup = setup().await;
    let token = out(&setup.run(&["tokenize", "--class", "ssn"], "x").await).trim_end().to_owned();
    let unknown = fake::token(u128::MAX);
    let some = setup.run(&["detokenize", &token, &unknown, "junk", "--purpose", "TREAT"], "").await;
    assert_eq!((code(&some), out(&some)), (1, "x\n".to_owned()));
    assert!(err(&some).contains(&unknown), "{}", err(&some));
    assert_eq!(code(&setup.run(&["detokenize", &token, "--purpose", "CURIOSITY"], "").await), 2);
    assert_eq!(code(&setup.run(&["tokenize", "--class", "ssn", "999-12-3456"], "").await), 2);
    setup.server.state.fail_next(|| Status::permission_denied("no"));
    let refused = setup.run(&["detokenize", &token, "--purpose", "TREAT"], "").await;
    assert_eq!(code(&refused), 3);
    assert!(err(&refused).contains("--as"), "{}", err(&refused));
    write_profile(&setup.pki, "https://127.0.0.1:1");
    let away = setup.run(&["--json", "mask", &token], "").await;
    assert_eq!(code(&away), 4);
    let error: serde_json::Value = serde_json::from_slice(&away.stderr).unwrap();
    assert_eq!(error["error"]["reason"], "CONNECTION");
    let nobody = run(Command::new(env!("CARGO_BIN_EXE_vaultctl")), "").await;
    assert_eq!(code(&nobody), 2);
}

#[tokio::test]
async fn lines_are_values_of_their_own_and_a_bad_one_is_named_by_its_line() {
    let setup = setup().await;
    let kept = setup.run(&["tokenize", "--class", "name", "--lines"], "Ada\n\nGrace\n").await;
    assert_eq!((code(&kept), out(&kept).lines().count()), (1, 2));
    assert!(err(&kept).contains("line 2"), "{}", err(&kept));
    assert!(!err(&kept).contains("Ada"));
}

const CSV: &str = "\u{feff}ID,SSN,NOTE\r\np1,999-12-0001,\"a, \"\"b\"\"\"\r\np2,999-12-0002,\r\np3,,x\r\n";

fn import<'a>(input: &'a str, out: &'a str) -> Vec<&'a str> {
    vec!["import", input, "--map", "SSN=ssn", "--subject", "ID", "--out", out]
}

#[tokio::test]
async fn an_import_leaves_tokens_only_and_its_export_is_the_file_byte_for_byte() {
    let setup = setup().await;
    let (input, tokens, back) = (setup.file("in.csv", CSV), setup.path("tokens.csv"), setup.path("back.csv"));
    let imported = setup.run(&import(&input, &tokens), "").await;
    assert_eq!(code(&imported), 0, "{}", err(&imported));
    assert!(err(&imported).contains("3 rows, 2 values tokenized, 0 rows rejected"), "{}", err(&imported));
    let text = setup.read("tokens.csv");
    assert!(!text.contains("999-12") && text.matches("phi_dev_").count() == 2);
    assert!(is_private(Path::new(&tokens)));
    let exported =
        setup.run(&["export", &tokens, "--purpose", "HOPERAT", "--out", &back, "--json"], "").await;
    assert_eq!(code(&exported), 0, "{}", err(&exported));
    let summary: serde_json::Value = serde_json::from_slice(&exported.stdout).unwrap();
    assert_eq!(summary["values"], 2);
    assert_eq!(setup.read("back.csv"), CSV);
    let again = setup.run(&import(&input, &tokens), "").await;
    assert_eq!(code(&again), 2, "an output is not overwritten");
    let fresh = [import(&input, &tokens), vec!["--fresh"]].concat();
    assert_eq!(code(&setup.run(&fresh, "").await), 0);
}

#[tokio::test]
async fn an_import_goes_on_after_the_vault_was_away_and_keeps_nothing_twice() {
    let setup = setup().await;
    let rows: Vec<_> = (0..500).map(|n| format!("p{n},999-12-{n:04},x\n")).collect();
    let (input, tokens) =
        (setup.file("in.csv", &format!("ID,SSN,NOTE\n{}", rows.concat())), setup.path("tokens.csv"));
    // Its first chunks are kept, then the vault is away, the answer to a chunk that it kept is lost.
    let args = [import(&input, &tokens), vec!["--batch", "100", "--patience", "1s"]].concat();
    for _ in 0..2 {
        setup.server.state.pass_next();
    }
    for _ in 0..40 {
        setup.server.state.fail_next(|| Status::unavailable("away"));
    }
    let away = setup.run(&args, "").await;
    assert_eq!(code(&away), 4, "{}", err(&away));
    assert!(err(&away).contains("goes on from there"), "{}", err(&away));
    setup.server.state.faults.lock().unwrap().clear();
    let done = setup.run(&args, "").await;
    assert_eq!(code(&done), 0, "{}", err(&done));
    assert!(err(&done).contains("500 rows, 500 values"), "{}", err(&done));
    assert_eq!(setup.server.state.values.lock().unwrap().len(), 500);
    assert_eq!(setup.read("tokens.csv").lines().count(), 501);
}

#[tokio::test]
async fn a_rejected_row_goes_to_its_own_file_and_the_report_names_its_place_only() {
    let setup = setup().await;
    let (input, tokens) =
        (setup.file("in.csv", "ID,SSN\np1,999-12-0001\np2,bad-secret\n"), setup.path("o.csv"));
    let done = setup.run(&import(&input, &tokens), "").await;
    assert_eq!(code(&done), 1, "{}", err(&done));
    assert_eq!(setup.read("o.csv.rejects"), "ID,SSN\np2,bad-secret\n");
    assert_eq!(setup.read("o.csv.rejects.csv"), "row,column,class,reason\n3,SSN,ssn,value_invalid\n");
    assert!(err(&done).contains("1 rejected: class ssn, value_invalid"), "{}", err(&done));
    assert!(!err(&done).contains("bad-secret"));
    assert!(is_private(Path::new(&setup.path("o.csv.rejects.csv"))));
}

#[tokio::test]
async fn an_export_by_who_may_not_is_refused_as_a_whole() {
    let setup = setup().await;
    let (input, tokens, back) = (setup.file("in.csv", CSV), setup.path("tokens.csv"), setup.path("back.csv"));
    assert_eq!(code(&setup.run(&import(&input, &tokens), "").await), 0);
    setup.server.state.fail_next(|| Status::permission_denied("no"));
    let refused = setup.run(&["export", &tokens, "--purpose", "TREAT", "--out", &back], "").await;
    assert_eq!(code(&refused), 3, "{}", err(&refused));
}

#[tokio::test]
async fn a_bad_file_or_map_is_wrong_use_and_names_the_place() {
    let setup = setup().await;
    let (input, tokens) = (setup.file("in.csv", "ID,SNN\np1,x\n"), setup.path("o.csv"));
    let missing = setup.run(&import(&input, &tokens), "").await;
    assert_eq!(code(&missing), 2);
    assert!(err(&missing).contains("entry 1 of the map"), "{}", err(&missing));
    let ragged = setup.file("ragged.csv", "ID,SSN\np1\n");
    let ragged = setup.run(&import(&ragged, &tokens), "").await;
    assert_eq!(code(&ragged), 2);
    assert!(err(&ragged).contains("row 2"), "{}", err(&ragged));
}

#[tokio::test]
async fn an_import_over_its_own_input_is_refused_and_touches_nothing() {
    let setup = setup().await;
    let (input, tokens) = (setup.file("in.csv", CSV), setup.path("tokens.csv"));
    let dotted = setup.path("./in.csv");
    let files = || std::fs::read_dir(setup.pki.path("")).unwrap().count();
    let before = files();
    for args in [
        import(&input, &input),
        import(&input, &dotted),
        [import(&input, &tokens), vec!["--rejects", &dotted]].concat(),
        [import(&input, &tokens), vec!["--rejects", &tokens]].concat(),
        // Its report is `in.csv`.
        [import(&input, &tokens), vec!["--rejects", input.strip_suffix(".csv").unwrap()]].concat(),
    ] {
        for args in [args.clone(), [args.clone(), vec!["--fresh"]].concat()] {
            let refused = setup.run(&args, "").await;
            assert_eq!(code(&refused), 2, "{args:?}");
            assert!(err(&refused).contains("same file"), "{}", err(&refused));
            assert_eq!((setup.read("in.csv").as_str(), files()), (CSV, before), "{args:?}");
        }
    }
}

#[tokio::test]
async fn a_fresh_import_with_a_wrong_map_keeps_the_output_that_is_there() {
    let setup = setup().await;
    let (input, tokens) = (setup.file("in.csv", CSV), setup.file("tokens.csv", "precious"));
    let wrong = ["import", &input, "--map", "SNN=ssn", "--out", &tokens, "--fresh"];
    let refused = setup.run(&wrong, "").await;
    assert_eq!((code(&refused), setup.read("tokens.csv").as_str()), (2, "precious"));
    assert!(
        err(&refused).contains("entry 1 of the map") && !err(&refused).contains("NOTE"),
        "{}",
        err(&refused)
    );
}

#[tokio::test]
async fn a_class_that_the_vault_does_not_know_stops_the_import_and_leaves_nothing() {
    let setup = setup().await;
    let (input, tokens) = (setup.file("in.csv", CSV), setup.path("tokens.csv"));
    let wrong = ["import", &input, "--map", "ID=text", "--map", "SSN=nosuch", "--out", &tokens];
    let refused = setup.run(&wrong, "").await;
    assert_eq!(code(&refused), 2, "{}", err(&refused));
    assert!(err(&refused).contains("for column `SSN`"), "{}", err(&refused));
    let done = setup.run(&import(&input, &tokens), "").await;
    assert_eq!(code(&done), 0, "{}", err(&done));
}

#[tokio::test]
async fn that_something_is_kept_is_said_only_when_it_is() {
    let setup = setup().await;
    let nowhere = setup.path("nonexistent/o.csv");
    let input = setup.file("in.csv", CSV);
    let failed = setup.run(&import(&input, &nowhere), "").await;
    assert_eq!(code(&failed), 2);
    assert!(!err(&failed).contains("kept"), "{}", err(&failed));
}

#[tokio::test]
async fn a_value_on_the_command_line_is_refused_and_not_repeated() {
    let setup = setup().await;
    for args in [&["tokenize", "--class", "ssn", "999-68-7171"][..], &["--json", "999-68-7171"]] {
        let refused = setup.run(args, "").await;
        assert_eq!(code(&refused), 2);
        assert!(err(&refused).contains("values come by standard input"), "{}", err(&refused));
        assert!(!err(&refused).contains("7171") && !out(&refused).contains("7171"));
    }
}

#[tokio::test]
async fn a_value_in_the_place_of_a_name_is_not_repeated() {
    let setup = setup().await;
    let (input, tokens) = (setup.file("in.csv", CSV), setup.path("o.csv"));
    for args in [
        &["--as", "999-68-7171", "keys", "list"][..],
        &["import", &input, "--map", "999-68-7171=ssn", "--out", &tokens],
        &["import", &input, "--map", "SSN=999-68-7171", "--out", &tokens],
        &["import", &input, "--map", "SSN=ssn", "--subject", "999-68-7171", "--out", &tokens],
    ] {
        let refused = setup.run(args, "").await;
        assert_eq!(code(&refused), 2, "{}", err(&refused));
        assert!(!err(&refused).contains("7171") && !out(&refused).contains("7171"), "{}", err(&refused));
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_vaultctl"));
    command.args(["--profile", "999-68-7171", "whoami"]);
    let refused = run(command, "").await;
    assert_eq!(code(&refused), 2);
    assert!(err(&refused).contains("not there") && !err(&refused).contains("7171"), "{}", err(&refused));
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_vaultctl"));
    let ended = command.args(["completions", "bash"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((code(&ended), err(&ended)), (0, String::new()));
}

#[tokio::test]
async fn the_example_program_runs() {
    let setup = setup().await;
    let example = Path::new(env!("CARGO_BIN_EXE_vaultctl")).with_file_name("examples").join("quickstart");
    let mut command = Command::new(example);
    command.arg(setup.pki.path("profile.toml"));
    let ran = run(command, "999-12-3456\n").await;
    assert_eq!(code(&ran), 0, "{}", err(&ran));
    let text = out(&ran);
    assert!(text.contains("came back   the same") && text.contains("erased      NOT_FOUND"), "{text}");
    assert!(!text.contains("999-12-3456"));
}

#[test]
fn a_log_is_verified_offline_and_a_changed_byte_is_found() {
    use prost::Message as _;
    use vault_format::checkpoint::Checkpoint;
    use vault_format::export::DirWriter;
    use vault_format::note::Signer;
    use vault_format::tree::Hash;

    let dir = tempfile::tempdir().unwrap();
    let (log, key) = (dir.path().join("log"), dir.path().join("log.vkey"));
    let entry = vault_proto::v1::AuditEntry {
        version: 1,
        request_id: vec![7; 16].into(),
        parts: 1,
        ..Default::default()
    };
    let leaf = entry.encode_to_vec();
    let signer = Signer::from_seed("vault.test/log", &[1; 32]).unwrap();
    let checkpoint = Checkpoint { origin: "vault.test/log".into(), size: 1, root: Hash::leaf(&leaf) };
    let mut writer = DirWriter::create(&log).unwrap();
    writer.push(&leaf).unwrap();
    writer.finish(&checkpoint.sign(&signer).unwrap(), signer.verifier()).unwrap();
    std::fs::write(&key, signer.verifier().to_key()).unwrap();
    assert!(is_private(&log.join("checkpoint")) && is_private(&log.join("tile/entries/000.p/1")));
    for dir in ["", "tile", "tile/0", "tile/entries/000.p"] {
        assert_eq!(mode(&log.join(dir)), 0o700, "{dir}");
    }

    let verify = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vaultctl"));
        command.args(["audit", "verify", "--dir"]).arg(&log).arg("--key").arg(&key).output().unwrap()
    };
    assert_eq!((code(&verify()), out(&verify())), (0, "verified: 1 entries of vault.test/log\n".to_owned()));
    let bundle = log.join("tile/entries/000.p/1");
    let mut bytes = std::fs::read(&bundle).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    assert_eq!(code(&verify()), 1);
    assert!(err(&verify()).contains("not verified"), "{}", err(&verify()));
}

#[test]
fn completions_need_no_vault() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vaultctl"));
    let made = command.args(["completions", "bash"]).output().unwrap();
    assert!(made.status.success() && out(&made).contains("detokenize"));
}

fn is_private(path: &Path) -> bool {
    mode(path) == 0o600
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
