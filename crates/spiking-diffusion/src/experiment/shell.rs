//! Words as a shell takes them.

/// The word, in quotes where a shell would split or expand it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_split_or_expand_them() {
        assert_eq!(["--set", "a.b=1", "/tmp/x"].map(quoted), ["--set", "a.b=1", "/tmp/x"]);
        assert_eq!(
            ["", "my runs", "it's", "$HOME"].map(quoted),
            ["''", "'my runs'", r"'it'\''s'", "'$HOME'"]
        );
    }
}
