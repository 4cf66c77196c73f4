//! The choice of a backend. It is the process's, so this is one test in a program of its own.

use crypto::{Algorithm, Backend, BackendError, XtsKey};

#[test]
fn the_first_choice_holds_and_says_so_to_later_ones() {
    for backend in Backend::ALL {
        assert_eq!(backend.name().parse(), Ok(backend));
        if !backend.is_available() {
            let refused = backend.choose();
            assert_eq!(refused, Err(BackendError::Unavailable(backend)));
            let message = refused.unwrap_err().to_string();
            assert!(message.contains(backend.name()) && message.contains("can run portable"), "{message}");
        }
    }
    let unknown = "sse".parse::<Backend>().unwrap_err();
    assert_eq!(unknown.to_string(), "unknown backend `sse`: expected one of portable, aesni, vaes256, vaes512");

    assert_eq!(Backend::Portable.choose(), Ok(()));
    assert_eq!(Backend::Portable.choose(), Ok(()));
    let key = XtsKey::new(Algorithm::AesXts128, &[0; 16], &[0; 16]);
    assert_eq!(key.backend(), Backend::Portable);
    if let Some(other) = Backend::available().find(|backend| *backend != Backend::Portable) {
        assert_eq!(other.choose(), Err(BackendError::Settled(Backend::Portable)));
        assert_eq!(XtsKey::with_backend(other, Algorithm::AesXts128, &[0; 16], &[0; 16]).backend(), other);
    }
}
