//! Pages of lists.

use tablet_server::limits;
use tonic::Status;

/// The items that a page may have: what `page_size` asks for, at most `max`, and `max` for 0.
///
/// # Errors
///
/// INVALID_ARGUMENT where it is negative.
pub fn check_size(page_size: i32, max: usize) -> Result<usize, Status> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(max),
        Ok(size) => Ok(size.min(max)),
        Err(_) => Err(limits::refuse("page_size", format_args!("{page_size}, at least 0 (as many as fit)"))),
    }
}

/// The first `size` items of `rest`, and the token that leads to the next page:
/// that of the last item, or empty where there is no more.
pub fn cut<T>(rest: impl Iterator<Item = T>, size: usize, token: impl Fn(&T) -> String) -> (Vec<T>, String) {
    let mut rest = rest;
    let page: Vec<T> = rest.by_ref().take(size).collect();
    let next = match page.last() {
        Some(last) if rest.next().is_some() => token(last),
        _ => String::new(),
    };
    (page, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_given_only_where_more_follows() {
        let token = |item: &i32| item.to_string();
        assert_eq!(cut([1, 2, 3].into_iter(), 2, token), (vec![1, 2], "2".to_owned()));
        assert_eq!(cut([1, 2].into_iter(), 2, token), (vec![1, 2], String::new()));
        assert_eq!(cut([].into_iter(), 2, token), (vec![], String::new()));
    }

    #[test]
    fn a_page_is_as_large_as_asked_for_within_bounds() {
        assert_eq!(check_size(0, 7).unwrap(), 7);
        assert_eq!(check_size(3, 7).unwrap(), 3);
        assert_eq!(check_size(8, 7).unwrap(), 7);
        assert!(check_size(-1, 7).is_err());
    }
}
