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
use crate::adapter::{Adapter, OpenOptions, promised};
use crate::error::{Error, ErrorKind, HeaderError, Result};

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
        Err(error) => return unreadable(options, &asked, error),
    };
    let mut findings = faults(&adapter);
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
    let is_wrong = findings.iter().any(Finding::is_grave);
    let broken = findings.iter().any(|finding| finding.severity == Severity::Breaks);
    let mut programs = Vec::new();
    for asked in &asked {
        let judge = Judge::new(&subject, asked);
        let (verdict, found) = judge.verdict(broken);
        programs.push(verdict);
        findings.extend(found);
    }
    // Of an adapter that is wrong by itself, or of another base, that says more.
    let comparable = base.as_ref().filter(|base| !is_wrong && base.misfits.is_empty());
    findings.extend(comparable.and_then(|base| incomplete(&adapter, base)));
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
    let open = OpenOptions { ignored_fields, residual_base: true, contested: true, ..open };
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
    ) || matches!(error.kind(), ErrorKind::BadConfig { reason } if reason.contains("_pattern"))
}

/// Whether an error is that the files of an adapter are damaged, so that nothing loads them; what is no such
/// file at all is none of it.
fn is_damage(error: &Error) -> bool {
    use HeaderError::{BadHeader, HeaderTooLarge, OtherFormat};
    let foreign = |error: &HeaderError| {
        matches!(error, BadHeader { .. } | HeaderTooLarge { .. } | OtherFormat { .. })
    };
    matches!(error.kind(), ErrorKind::Header(header) if !foreign(header))
        || matches!(
            error.kind(),
            ErrorKind::BadGguf { .. }
                | ErrorKind::BadIndex { .. }
                | ErrorKind::MissingShard { .. }
                | ErrorKind::MissingTensor { .. }
                | ErrorKind::TensorTwice { .. }
                | ErrorKind::SameTarget { .. }
                | ErrorKind::BadConfig { .. }
        )
}

/// What there is to say of an adapter that does not open.
fn unreadable(options: &Options, asked: &[ProgramVersion], error: Error) -> Result<Report> {
    let (rule, severity, effect, answer, says) = if is_unknown(&error) {
        let says = format!("nothing is known of such an adapter: {error}");
        ("unknown-adapter", Severity::Unknown, Effect::Unknown, Answer::Unknown, says)
    } else if is_damage(&error) {
        let says = error.to_string();
        ("damaged-file", Severity::Breaks, Effect::Refused, Answer::No, says)
    } else {
        return Err(error);
    };
    let verdict = |ProgramVersion { program, version }: &ProgramVersion| Verdict {
        program: program.name,
        version: version.as_ref().map_or_else(|| program.version.to_owned(), Version::to_string),
        answer,
        verdict: effect.name(),
        modules: (0, 0),
        needs: Vec::new(),
        fix: None,
    };
    let finding = Finding {
        program: None,
        rule,
        severity,
        effect,
        says,
        places: Vec::new(),
        source: "",
        fix: error.hint(),
    };
    Ok(Report {
        adapter: options.adapter.clone(),
        against: options.against.clone(),
        convention: "unknown",
        ok: false,
        answer,
        programs: asked.iter().map(verdict).collect(),
        findings: vec![finding],
    })
}

/// What is wrong with single modules: one finding for all of which the same is.
fn faults(adapter: &Adapter) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for fault in &adapter.faults {
        let says = fault.kind().to_string();
        let known = found.iter().position(|finding| finding.says == says);
        let at = known.unwrap_or_else(|| {
            let (severity, effect) = (Severity::Breaks, Effect::Refused);
            let (rule, places, source, fix) = ("faulty-module", Vec::new(), "", fault.hint());
            found.push(Finding {
                program: None,
                rule,
                severity,
                effect,
                says,
                places,
                source,
                fix,
            });
            found.len() - 1
        });
        if let Some(finding) = found.get_mut(at) {
            finding.places.extend(fault.tensor().map(Place::from));
        }
    }
    found
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

/// Modules of the base that the config promises, and the file has no factors of.
fn incomplete(adapter: &Adapter, base: &Base) -> Option<Finding> {
    let names = base.checkpoint.as_ref()?.names();
    let says = promised::missing(adapter, Some(names))?;
    let (severity, effect) = (Severity::Note, Effect::Note);
    let (rule, places, source) = ("missing-modules", Vec::new(), "");
    Some(Finding { program: None, rule, severity, effect, says, places, source, fix: None })
}

/// Of one program its own answer; of all, yes if one of them loads the adapter. What is wrong with the
/// adapter itself is a no.
fn answer(programs: &[Verdict], findings: &[Finding]) -> Answer {
    let wrong = |finding: &Finding| finding.program.is_none() && finding.is_grave();
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
