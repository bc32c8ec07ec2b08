//! A check from the options to the report.

use std::path::{Path, PathBuf};

use super::anomaly;
use super::base::Base;
use super::judge::Judge;
use super::place::Place;
use super::program::{PROGRAMS, ProgramVersion};
use super::report::{Answer, Finding, Report, Severity, Verdict};
use super::rule::Effect;
use super::subject::{Subject, models};
use super::version::Version;
use crate::adapter::{Adapter, OpenOptions};
use crate::error::{Error, ErrorKind, Result};

/// What to check, and for whom.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The adapter.
    pub adapter: PathBuf,
    /// The program's name, with a version behind an @ if not the newest is meant; none for all.
    pub program: Option<String>,
    /// A base that the modules shall fit.
    pub against: Option<PathBuf>,
    /// The highest rank that the server is started for.
    pub max_rank: Option<usize>,
    /// How the adapter is opened.
    pub open: OpenOptions,
}

/// Names of all programs.
pub fn programs() -> Vec<&'static str> {
    PROGRAMS.iter().map(|program| program.name).collect()
}

/// Looks for everything that the programs' rules name.
///
/// # Errors
/// If there is no such program or version, or a file cannot be opened or read.
pub fn run(options: &Options) -> Result<Report> {
    let asked = match &options.program {
        Some(text) => vec![ProgramVersion::parse(text)?],
        None => PROGRAMS.iter().map(|program| ProgramVersion { program, version: None }).collect(),
    };
    let base =
        options.against.as_ref().map(|path| Base::open(path, &options.adapter, &options.open));
    let mut base = base.transpose()?;
    let adapter = match open(options, base.as_ref()) {
        Ok(adapter) => adapter,
        Err(error) if is_unknown(&error) => return Ok(unknown(options, &asked, &error)),
        Err(error) => return Err(error),
    };
    let mut findings: Vec<Finding> = adapter.faults.iter().map(fault).collect();
    findings.extend(strangers(&adapter));
    findings.extend(anomaly::all(&adapter)?);
    if let Some(base) = &mut base {
        base.look_up(&adapter)?;
    }
    let models = models(&adapter, base.as_ref());
    let subject = Subject {
        adapter: &adapter,
        base: base.as_ref(),
        max_rank: options.max_rank,
        models: &models,
    };
    let broken = findings.iter().any(|finding| finding.severity == Severity::Breaks);
    let mut programs = Vec::new();
    for asked in &asked {
        let judge = Judge::new(&subject, asked);
        let (verdict, found) = judge.verdict(broken);
        programs.push(verdict);
        findings.extend(found);
    }
    let answer = answer(&programs, &findings);
    Ok(Report {
        adapter: options.adapter.clone(),
        against: options.against.clone(),
        convention: adapter.convention.name,
        ok: answer == Answer::Yes,
        answer,
        programs,
        findings,
    })
}

/// Flags that a program's server needs for an adapter; none where that cannot be told.
pub(in crate::ops) fn needs(adapter: &Path, program: &str) -> Vec<String> {
    let (adapter, program) = (adapter.to_path_buf(), Some(program.to_owned()));
    let open = OpenOptions::default();
    let report = run(&Options { adapter, program, against: None, max_rank: None, open });
    report
        .into_iter()
        .flat_map(|report| report.programs)
        .flat_map(|verdict| verdict.needs)
        .collect()
}

/// Opens the adapter, whatever its config's fields mean: rules judge those.
fn open(options: &Options, base: Option<&Base>) -> Result<Adapter> {
    const JUDGED: [&str; 6] = [
        "alora_invocation_tokens",
        "arrow_config",
        "layer_replication",
        "use_qalora",
        "use_bdlora",
        "kasa_config",
    ];
    let checkpoint = base.and_then(|base| base.checkpoint.as_ref());
    let open = checkpoint
        .map_or_else(|| Ok(options.open.clone()), |checkpoint| options.open.for_base(checkpoint))?;
    let mut ignored_fields = open.ignored_fields.clone();
    ignored_fields.extend(JUDGED.map(str::to_owned));
    let open = OpenOptions { ignored_fields, residual_base: true, ..open };
    Adapter::open(&options.adapter, &open)
}

/// Whether an error is that nothing is known of such an adapter, and not that it cannot be read.
fn is_unknown(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnknownKeys { .. }
            | ErrorKind::UnsupportedType { .. }
            | ErrorKind::UnsupportedField { .. }
            | ErrorKind::UnknownField { .. }
    )
}

fn unknown(options: &Options, asked: &[ProgramVersion], error: &Error) -> Report {
    let verdict = |ProgramVersion { program, version }: &ProgramVersion| Verdict {
        program: program.name,
        version: version.as_ref().map_or_else(|| program.version.to_owned(), Version::to_string),
        answer: Answer::Unknown,
        verdict: Effect::Unknown.name(),
        modules: (0, 0),
        needs: Vec::new(),
        fix: None,
    };
    let finding = Finding {
        program: None,
        rule: "unknown-adapter",
        severity: Severity::Unknown,
        effect: Effect::Unknown,
        says: format!("nothing is known of such an adapter: {error}"),
        places: Vec::new(),
        source: "",
        fix: error.hint(),
    };
    Report {
        adapter: options.adapter.clone(),
        against: options.against.clone(),
        convention: "unknown",
        ok: false,
        answer: Answer::Unknown,
        programs: asked.iter().map(verdict).collect(),
        findings: vec![finding],
    }
}

fn fault(fault: &Error) -> Finding {
    Finding {
        program: None,
        rule: "faulty-module",
        severity: Severity::Breaks,
        effect: Effect::Refused,
        says: fault.to_string(),
        places: Vec::new(),
        source: "",
        fix: fault.hint(),
    }
}

/// Tensors that no convention knows: what they mean to a program that passes over them is not known.
fn strangers(adapter: &Adapter) -> Option<Finding> {
    let places: Vec<Place> = adapter.unknown.iter().map(|name| name.as_str().into()).collect();
    let says = "nothing is known of these tensors, and of what they do".to_owned();
    let (severity, effect) = (Severity::Unknown, Effect::Unknown);
    let (rule, source) = ("unknown-tensors", "");
    let finding =
        Finding { program: None, rule, severity, effect, says, places, source, fix: None };
    (!finding.places.is_empty()).then_some(finding)
}

/// Of one program its own answer; of all, yes if one of them loads the adapter. What is wrong with the
/// adapter itself is a no.
fn answer(programs: &[Verdict], findings: &[Finding]) -> Answer {
    let wrong = |finding: &Finding| {
        let grave = matches!(finding.severity, Severity::Breaks | Severity::Changes);
        finding.program.is_none() && grave
    };
    if findings.iter().any(wrong) {
        return Answer::No;
    }
    let any = |wanted: Answer| programs.iter().any(|verdict| verdict.answer == wanted);
    let strange =
        findings.iter().any(|own| own.program.is_none() && own.severity == Severity::Unknown);
    match (any(Answer::Yes), any(Answer::Unknown)) {
        (true, _) if strange => Answer::Unknown,
        (true, _) => Answer::Yes,
        (false, true) => Answer::Unknown,
        (false, false) => Answer::No,
    }
}
