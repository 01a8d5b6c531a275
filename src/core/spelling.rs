//! What somebody may have meant who misspelt a word. Used where configuration and policies are read, never on a request.

/// What somebody may have meant: at most two letters away, and less than half of the word.
#[must_use]
pub fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    known
        .map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 2 && distance * 2 < candidate.chars().count().max(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's, by rows.
#[must_use]
pub fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (above, one) in left.chars().enumerate() {
        let mut diagonal = above;
        let mut before = above + 1;
        let mut next = Vec::with_capacity(row.len());
        next.push(before);
        for (other, up) in right.chars().zip(row.iter().skip(1)) {
            let cost = (diagonal + usize::from(one != other)).min(up + 1).min(before + 1);
            diagonal = *up;
            before = cost;
            next.push(cost);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
