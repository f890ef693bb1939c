//! Whether a pod is not as a new one would be. In: what is known of the pod, and what new ones get. Out: the first [`Cause`] that holds. Left to others:
//! reading pods and hashes (`controller`), what follows (`replace`).

use super::Cause;
use crate::message::AccessLevel;

/// A pod without sidecar that is this young may be of a time at which the webhook was asked again; milliseconds.
const BARE_AGE_MS: u64 = 2_000;

/// A pod's sidecar, beside that of a new pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent facts
pub struct Sidecar<'a> {
    /// What it may do, by a report that still says something about now.
    pub access: Option<AccessLevel>,
    /// Its reports tell the worker's user, which sidecars of new pods are given.
    pub user_known: bool,
    /// The pod's spec gives it a user, so that new ones get no other.
    pub user_given: bool,
    /// There is a key that control messages are signed by.
    pub signs: bool,
    /// It refuses messages that are signed by it.
    pub refuses: bool,
    /// Its image; None: not known.
    pub image: Option<&'a str>,
    /// The image that new ones get; None: not known.
    pub new_image: Option<&'a str>,
    /// It was told other things than a new one would be.
    pub old_words: bool,
}

impl Cause {
    /// Of a pod with a sidecar; None: a new one would be the same.
    #[must_use]
    pub fn of_injected(of: &Sidecar<'_>) -> Option<Self> {
        if of.access == Some(AccessLevel::ReadOnly) && of.user_known && !of.user_given {
            return Some(Self::WrongUser);
        }
        // A pod without a key is as good as it was; one that believes nobody is not. Nor is it while there is no key to sign by, but then a new pod is no better.
        if of.signs && of.refuses {
            return Some(Self::OtherKey);
        }
        if let (Some(image), Some(new)) = (of.image, of.new_image)
            && image != new
        {
            return Some(Self::OldSidecar);
        }
        of.old_words.then_some(Self::OldConfiguration)
    }

    /// Of a pod without one.
    #[must_use]
    pub fn of_bare(created_ms: u64, now_ms: u64) -> Option<Self> {
        (now_ms >= created_ms.saturating_add(BARE_AGE_MS)).then_some(Self::Bare)
    }

    /// For people, of a pod that is replaced: "it …".
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Bare => "had no sidecar",
            Self::WrongUser => "had a sidecar that could not signal its worker",
            Self::OldConfiguration => "was made with other annotations",
            Self::OtherKey => "was given another key than control messages are signed by",
            Self::OldSidecar => "had another sidecar than new pods get",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_is_compared_with_that_of_a_new_pod_and_not_with_what_would_be_best() {
        let same = Sidecar { access: Some(AccessLevel::Full), signs: true, image: Some("s:1"), new_image: Some("s:1"), ..Sidecar::default() };
        let read_only = Sidecar { access: Some(AccessLevel::ReadOnly), user_known: true, ..same };
        for (sidecar, cause, why) in [
            (same, None, "nothing differs"),
            (read_only, Some(Cause::WrongUser), "a new one would be given the user"),
            (Sidecar { user_known: false, ..read_only }, None, "a new one would not"),
            (Sidecar { user_given: true, ..read_only }, None, "nor where the pod's spec says another"),
            (Sidecar { access: None, ..read_only }, None, "nothing was heard of it lately"),
            (Sidecar { refuses: true, ..same }, Some(Cause::OtherKey), "it believes nobody"),
            (Sidecar { refuses: true, signs: false, ..same }, None, "a new one would be no better"),
            (Sidecar { new_image: Some("s:2"), ..same }, Some(Cause::OldSidecar), "an upgrade"),
            (Sidecar { new_image: None, old_words: true, ..same }, Some(Cause::OldConfiguration), "an annotation was changed"),
            (Sidecar { refuses: true, old_words: true, new_image: Some("s:2"), ..read_only }, Some(Cause::WrongUser), "the gravest first"),
        ] {
            assert_eq!(Cause::of_injected(&sidecar), cause, "{why}");
        }
        assert_eq!((Cause::of_bare(1_000, 2_999), Cause::of_bare(1_000, 3_000)), (None, Some(Cause::Bare)));
    }
}
