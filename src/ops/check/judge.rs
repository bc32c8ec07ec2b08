//! The rules of one program, applied to one adapter.

use std::collections::BTreeSet;

use super::cure::Cures;
use super::place::Place;
use super::program::{Field, ProgramVersion};
use super::report::{Answer, Finding, Severity, Verdict};
use super::rule::{Cure, Effect};
use super::shared::last_of;
use super::subject::Subject;
use super::version::Version;
use crate::adapter::module::Module;
use crate::adapter::stack_names::expert_of;

/// One program, one version, one adapter.
pub(super) struct Judge<'a> {
    subject: &'a Subject<'a>,
    asked: &'a ProgramVersion,
}

impl<'a> Judge<'a> {
    pub(super) fn new(subject: &'a Subject<'a>, asked: &'a ProgramVersion) -> Self {
        Self { subject, asked }
    }

    /// The verdict, and what it stands on. `broken` says that the adapter itself cannot be loaded.
    pub(super) fn verdict(&self, broken: bool) -> (Verdict, Vec<Finding>) {
        let found = self.findings();
        let cures: Vec<Cure> = found
            .iter()
            .filter(|(_, finding)| finding.severity != Severity::Note)
            .map(|(cure, _)| *cure)
            .collect();
        let mut findings: Vec<Finding> = found.into_iter().map(|(_, finding)| finding).collect();
        if broken {
            // No verb takes what is not whole.
            for finding in &mut findings {
                finding.fix = None;
            }
        }
        let worst = findings.iter().map(|finding| finding.effect).max().unwrap_or(Effect::Note);
        let worst = if broken { Effect::Refused } else { worst };
        let answer = match worst {
            Effect::Note => Answer::Yes,
            Effect::Unknown => Answer::Unknown,
            _ => Answer::No,
        };
        let all = self.subject.adapter.modules.len();
        let graver = |least: Effect| findings.iter().filter(move |own| own.effect >= least);
        let wrong = match worst {
            Effect::Note => 0,
            Effect::Refused => all,
            _ => self.count(graver(Effect::Unknown)),
        };
        let verdict = match worst {
            Effect::Note => "loads",
            Effect::Ignored if self.count(graver(Effect::Ignored)) == all && all > 0 => "no effect",
            Effect::Ignored => "partly ignored",
            other => other.name(),
        };
        let cures = Cures { subject: self.subject, asked: self.asked }.all(&cures);
        let verdict = Verdict {
            program: self.asked.program.name,
            version: self.version_text(),
            answer,
            verdict,
            modules: (wrong, all),
            needs: (self.asked.program.needs)(self.subject),
            fix: if broken { None } else { cures },
        };
        (verdict, findings)
    }

    /// Modules that findings name: by their own names, their factors', their kind's, or their stack's.
    fn count<'f>(&self, findings: impl Iterator<Item = &'f Finding>) -> usize {
        let mut whole = false;
        let places = findings.flat_map(|finding| {
            // Without places it is about the adapter as a whole.
            whole |= finding.places.is_empty() && finding.effect > Effect::Unknown;
            finding.places.iter()
        });
        let named: BTreeSet<&str> = places.map(|place| place.name.as_str()).collect();
        let is_named = |module: &&Module| {
            let stack = expert_of(&module.name).map(|(stack, _)| stack);
            whole
                || named.contains(module.name.as_str())
                || named.contains(last_of(module))
                || stack.is_some_and(|stack| named.contains(stack.as_str()))
                || module.form.tensors().into_iter().any(|tensor| named.contains(tensor))
        };
        self.subject.adapter.modules.iter().filter(is_named).count()
    }

    fn version_text(&self) -> String {
        self.asked
            .version
            .as_ref()
            .map_or_else(|| self.asked.program.version.to_owned(), Version::to_string)
    }

    fn findings(&self) -> Vec<(Cure, Finding)> {
        let mut found = Vec::new();
        let (subject, program) = (self.subject, self.asked.program);
        let convention = subject.adapter.convention.name;
        let reads = program.reads.contains(&convention);
        if !reads {
            let says = format!(
                "it does not read the {convention} convention, but {}",
                program.reads.join(", ")
            );
            let cure = if self.may_be_its() { Cure::Convert } else { Cure::None };
            found.push(self.made("convention", Effect::Refused, says, cure));
        }
        if let Some(text) = self.stranger() {
            found.push(self.made("version", Effect::Unknown, text, Cure::None));
        }
        if let Some(reason) = subject.base.and_then(|base| base.opaque.as_ref()) {
            let says = format!("names were not held against the base: {reason}");
            found.push(self.made("base", Effect::Unknown, says, Cure::None));
        }
        // Of what it has to be converted for first, what remains then.
        let converted = !reads && !program.converts.contains(&convention);
        if converted && !self.may_be_its() {
            return found;
        }
        let newest = Version::parse(program.version);
        let version = self.asked.version.clone().or(newest);
        for rule in program.rules.iter().copied().flatten() {
            let gone = matches!(rule.cure, Cure::Convert) || rule.effect <= Effect::Unknown;
            if version.as_ref().is_none_or(|version| rule.holds(version))
                && !(converted && gone)
                && let Some(places) = (rule.finds)(subject)
            {
                let (says, effect) = (rule.says.to_owned(), rule.effect);
                let (cure, mut finding) = self.made(rule.name, effect, says, rule.cure);
                finding.places = places;
                finding.source = rule.source;
                found.push((cure, finding));
            }
        }
        let needs = if converted { Vec::new() } else { (program.needs)(subject) };
        for flag in needs {
            let says = format!("it has to be started with {flag}");
            found.push(self.made("needs", Effect::Note, says, Cure::None));
        }
        found
    }

    fn made(
        &self,
        rule: &'static str,
        effect: Effect,
        says: String,
        cure: Cure,
    ) -> (Cure, Finding) {
        let cures = Cures { subject: self.subject, asked: self.asked };
        let finding = Finding {
            program: Some(self.asked.program.name),
            rule,
            severity: effect.into(),
            effect,
            says,
            places: Vec::<Place>::new(),
            source: "",
            fix: cures.one(cure),
        };
        (cure, finding)
    }

    /// Whether an adapter of another convention could be for such a program at all.
    fn may_be_its(&self) -> bool {
        let language = self.subject.adapter.modules.iter().all(Subject::is_language);
        match self.asked.program.field {
            Field::Any => true,
            Field::Language => language,
            Field::Image => !language,
        }
    }

    /// Why nothing is known of the version, if that is so.
    fn stranger(&self) -> Option<String> {
        let (version, program) = (self.asked.version.as_ref()?, self.asked.program);
        let older = Version::parse(program.oldest).is_some_and(|oldest| *version < oldest);
        let newer = Version::parse(program.version).is_some_and(|newest| *version > newest);
        (older || newer).then(|| {
            let (oldest, newest) = (program.oldest, program.version);
            format!("its rules are known of {oldest} to {newest}, not of {version}")
        })
    }
}
