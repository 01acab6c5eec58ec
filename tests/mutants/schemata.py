#!/usr/bin/env python3
"""Runs the mutants of cargo-mutants from one build: all of them are compiled in, and one is chosen as a process starts.

    schemata.py build DIRECTORY            compiles them into the workspace that `shadow` made
    schemata.py run DIRECTORY RESULTS      runs those that RESULTS has no verdict of, or that it has as missed
    schemata.py report RESULTS             figures by file, and the missed ones

See docs/mutants.md.
"""
import collections, concurrent.futures, json, os, re, resource, subprocess, sys, time

HEADER = """
/// The mutant that this process is of.
pub fn mutant() -> u32 {
    static CHOSEN: std::sync::LazyLock<u32> =
        std::sync::LazyLock::new(|| std::env::var("MUTANT").map_or(0, |text| text.parse().unwrap()));
    *CHOSEN
}
"""
# A test of speed fails on a busy machine, which says nothing of a mutant; the tests of the matrix take seconds each, so those
# come last, and for what they are about.
SPEED = "a_kept_verdict_costs_next_to_nothing"
MATRIX = ["the_default_policies_do_what", "without_policies_the_matrix"]
OF_MATRIX = {"matrix", "policy", "question", "role", "principal"}
TIMEOUT, MATRIX_TIMEOUT = 20, 300
# Of one process: a loop without an end is caught sooner.
MEMORY = 2 << 30
# `const fn`s that constants call.
CONSTANT = {"Action::of_job"}


def cargo(directory, *arguments):
    return subprocess.run(["cargo", *arguments], cwd=directory, capture_output=True, text=True)


def body_of(text, start):
    """Where the body of the function whose item starts at `start` begins: behind its brace."""
    at = re.compile(r"^[ \t]*(?:pub(?:\([^)]*\))? |const |async |unsafe )*fn ", re.M)
    at = at.search(text, text.rfind("\n", 0, start) + 1).end()
    depth = 0
    while True:
        if text[at] in "([":
            depth += 1
        elif text[at] in ")]":
            depth -= 1
        elif text[at] == "{" and depth == 0:
            return at + 1
        at += 1


def write(directory, mutants, left_out):
    """Writes the sources with all mutants in, but those left out; answers with their places: file -> [(line, line, id)]."""
    places = {}
    by_file = collections.defaultdict(list)
    for mutant in mutants:
        by_file[mutant["file"]].append(mutant)
    for file, of_file in by_file.items():
        with open(os.path.join(directory, "original", file)) as source:
            text = source.read()
        starts = [0]
        for line in text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        place = lambda at: starts[at["line"] - 1] + at["column"] - 1
        functions = collections.defaultdict(list)
        for mutant in of_file:
            if mutant["id"] not in left_out:
                span = mutant["function"]["span"]
                functions[place(span["start"]), place(span["end"])].append(mutant)
        for (start, end), of_function in sorted(functions.items(), reverse=True):
            begin = body_of(text, start)
            body = text[begin : end - 1]
            arms = []
            for mutant in of_function:
                a, b = place(mutant["span"]["start"]) - begin, place(mutant["span"]["end"]) - begin
                assert 0 <= a <= b <= len(body), mutant["name"]
                changed = body[:a] + mutant["replacement"] + body[b:]
                arms.append("/*<%d*/ %d => {%s}\n/*%d>*/" % (mutant["id"], mutant["id"], changed, mutant["id"]))
            head = text[start:begin].replace("const fn", "fn")
            text = "%s%s match crate::mutant() {\n%s\n _ => {%s} } }%s" % (
                text[:start], head, "\n".join(arms), body, text[end:])
        with open(os.path.join(directory, file), "w") as source:
            source.write(text)
        here = places.setdefault(file, [])
        for number, line in enumerate(text.splitlines(), 1):
            for found in re.finditer(r"/\*<(\d+)\*/", line):
                here.append([number, None, int(found[1])])
            for found in re.finditer(r"/\*(\d+)>\*/", line):
                next(entry for entry in here if entry[2] == int(found[1]))[1] = number
    return places


def build(directory):
    listed = cargo(directory, "mutants", "--list", "--json", "-p", "vault-server")
    mutants = json.loads(listed.stdout)
    for number, mutant in enumerate(mutants, 1):
        mutant["id"] = number
        mutant.pop("diff", None)
    if not os.path.isdir(os.path.join(directory, "original")):
        os.makedirs(os.path.join(directory, "original/vault-server"))
        subprocess.run(["cp", "-a", os.path.join(directory, "vault-server/src"),
                        os.path.join(directory, "original/vault-server/")], check=True)
    with open(os.path.join(directory, "original/vault-server/src/lib.rs")) as lib:
        text = lib.read()
    with open(os.path.join(directory, "vault-server/src/lib.rs"), "w") as lib:
        lib.write(text + HEADER)
    # Not within a function that can ask which mutant it is, or in one whose type is that of its body: by cargo-mutants itself.
    apart = {m["id"]: "apart" for m in mutants
             if not m["function"] or "impl " in m["function"]["return_type"]
             or m["function"]["function_name"] in CONSTANT}
    unviable = {}
    while True:
        places = write(directory, mutants, {**apart, **unviable})
        done = cargo(directory, "test", "-p", "vault-server", "--lib", "--no-run", "--message-format=json")
        bad, binary = {}, None
        for line in done.stdout.splitlines():
            message = json.loads(line)
            if message.get("executable"):
                binary = message["executable"]
            if message["reason"] != "compiler-message" or message["message"]["level"] != "error":
                continue
            message = message["message"]
            hit = set()
            for span in message["spans"]:
                if not span["is_primary"]:
                    continue
                for begin, end, number in places.get(span["file_name"], []):
                    if begin <= span["line_start"] <= end:
                        hit.add(number)
            if not hit and message["spans"]:
                print("outside of all mutants:", message["rendered"])
                sys.exit(1)
            for number in hit:
                bad[number] = (message.get("code") or {}).get("code") or message["message"]
        if binary:
            break
        if not bad:
            print(done.stderr[-3000:])
            sys.exit(1)
        print(len(bad), "do not compile", flush=True)
        unviable.update(bad)
    with open(os.path.join(directory, "mutants.json"), "w") as out:
        json.dump({"binary": binary, "mutants": mutants, "unviable": unviable, "apart": apart}, out)
    print(len(mutants), "mutants,", len(unviable), "unviable,", len(apart), "apart:", binary)


def module_of(file):
    return file.removeprefix("vault-server/src/access/").removesuffix(".rs").split("/")[0]


def judge(directory, binary, mutant):
    """caught, by which test; missed; or timeout."""
    module = module_of(mutant["file"])
    rounds = [(["access::%s::" % module, "--skip", "access::matrix::"], TIMEOUT),
              (["--skip", "access::matrix::"], TIMEOUT)]
    if module == "matrix":
        rounds = []
    if module in OF_MATRIX:
        rounds += [([test], MATRIX_TIMEOUT) for test in MATRIX]
    for arguments, timeout in rounds:
        environment = {**os.environ, "MUTANT": str(mutant["id"]), "RUST_BACKTRACE": "0"}
        try:
            done = subprocess.run([binary, *arguments, "--skip", SPEED], capture_output=True, text=True,
                                  cwd=os.path.join(directory, "vault-server"), env=environment, timeout=timeout,
                                  preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)))
        except subprocess.TimeoutExpired:
            return {"verdict": "timeout", "in": arguments}
        if done.returncode != 0:
            failed = re.findall(r"^test (\S+) \.\.\. FAILED", done.stdout, re.M)
            return {"verdict": "caught", "by": failed[:8] or ["exit %d" % done.returncode]}
    return {"verdict": "missed"}


def run(directory, results):
    with open(os.path.join(directory, "mutants.json")) as source:
        state = json.load(source)
    verdicts = {}
    if os.path.exists(results):
        with open(results) as source:
            verdicts = {v["name"]: v for v in map(json.loads, source)}
    sound = judge(directory, state["binary"], {"id": 0, "file": "vault-server/src/access/engine.rs"})
    assert sound["verdict"] == "missed", "the tests fail without a mutant: %s" % sound
    begun, todo = time.time(), []
    for mutant in state["mutants"]:
        number = str(mutant["id"])
        if number in state["unviable"]:
            verdicts[mutant["name"]] = {"verdict": "unviable", "why": state["unviable"][number]}
        elif number in state["apart"]:
            verdicts.setdefault(mutant["name"], {"verdict": "apart"})
        elif verdicts.get(mutant["name"], {}).get("verdict") not in ("caught", "timeout"):
            todo.append(mutant)
    todo.sort(key=lambda mutant: module_of(mutant["file"]) in OF_MATRIX)
    names = {mutant["name"] for mutant in state["mutants"]}

    def save():
        with open(results + ".new", "w") as out:
            for name, verdict in sorted(verdicts.items()):
                if name in names:
                    out.write(json.dumps({"name": name, **{k: v for k, v in verdict.items() if k != "name"}}) + "\n")
        os.replace(results + ".new", results)

    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("JOBS", "2"))) as pool:
        work = {pool.submit(judge, directory, state["binary"], mutant): mutant for mutant in todo}
        for count, done in enumerate(concurrent.futures.as_completed(work), 1):
            verdicts[work[done]["name"]] = done.result()
            if done.result()["verdict"] != "caught":
                print(done.result()["verdict"], work[done]["name"], flush=True)
            save()
            if count % 20 == 0 or count == len(todo):
                print("%d of %d, %.0f s" % (count, len(todo), time.time() - begun), flush=True)


def report(results):
    with open(results) as source:
        verdicts = [json.loads(line) for line in source]
    files = collections.defaultdict(collections.Counter)
    for verdict in verdicts:
        for key in (verdict["name"].split(":")[0].removeprefix("vault-server/src/access/"), "~ all"):
            files[key][verdict["verdict"]] += 1
    kinds = ["caught", "timeout", "missed", "unviable", "apart"]
    print("| file | " + " | ".join(kinds) + " | caught of viable |\n|---|" + "---:|" * (len(kinds) + 1))
    for file, counts in sorted(files.items()):
        good, viable = counts["caught"] + counts["timeout"], counts["caught"] + counts["timeout"] + counts["missed"]
        rate = "%.1f %%" % (100 * good / viable) if viable else ""
        print("| %s | %s | %s |" % (file, " | ".join(str(counts[kind]) for kind in kinds), rate))
    for verdict in verdicts:
        if verdict["verdict"] in ("missed", "apart"):
            print(verdict["verdict"], verdict["name"])


{"build": build, "run": run, "report": report}[sys.argv[1]](*sys.argv[2:])
