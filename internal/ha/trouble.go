package ha

// ErrorKind is the sort of an error that reaches a person or another program.
// The numbers are for ever: they cross the wire (gemel.v1.ErrorKind) and become
// exit codes of the tool. Zero means that it was not said.
type ErrorKind uint8

// The kinds of errors.
const (
	ErrInvalid     ErrorKind = 1 + iota // the request itself is wrong
	ErrNotFound                         // there is no such thing
	ErrDenied                           // the caller may not do this
	ErrRefused                          // it cannot be done in the present state
	ErrBound                            // too much, too many, too slow
	ErrUnavailable                      // Gemel is starting, ending, or not there
	ErrFailed                           // Gemel failed at it; the text says how
)

var errorKindNames = [...]string{"unspecified", "invalid", "not-found", "denied", "refused", "bound", "unavailable", "failed"}

func (k ErrorKind) String() string { return nameOf(errorKindNames[:], int(k)) }

// An Error is an error with its kind and with what to do about it. Any package
// may return one, wrapped or not; the API passes it on whole.
type Error struct {
	Kind   ErrorKind
	Reason string // stable short word for programs, as "no-process"; may be empty
	Hint   string // what to do, one sentence; may be empty
	Err    error  // what went wrong
}

// Error returns the text of what went wrong, without the hint.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Kind.String()
	}
	return e.Err.Error()
}

// Unwrap returns what went wrong.
func (e *Error) Unwrap() error { return e.Err }
