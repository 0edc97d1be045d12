package registry

import (
	"io"
	"net/http"
	"time"
)

// patience is how long a client may neither send nor take anything.
const patience = time.Minute

// patientWriter gives a client that takes nothing up.
type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

// WriteHeader implements http.ResponseWriter.
func (w *patientWriter) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *patientWriter) Write(p []byte) (int, error) {
	w.begun = true
	_ = w.control.SetWriteDeadline(time.Now().Add(patience)) // a test's recorder has no deadlines
	return w.ResponseWriter.Write(p)
}

// patientBody gives a client that sends nothing up.
type patientBody struct {
	io.ReadCloser
	control *http.ResponseController
}

// Read implements io.Reader.
func (b *patientBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(patience)) // likewise
	return b.ReadCloser.Read(p)
}
