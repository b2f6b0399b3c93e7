//! haystack
