package world

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// maxBody bounds what a server keeps of a body, in bytes.
const maxBody = 64 << 10

// Entry is one line of a server's log: something that arrived there.
type Entry struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"` // question, accept, hello, request, bytes
	Peer  string    `json:"peer,omitempty"`
	// Name is what was asked for: a DNS question's name, or a TLS client's server name.
	Name string `json:"name,omitempty"`
	Type string `json:"type,omitempty"` // of a question: A, AAAA, …; of bytes: tcp or udp
	HTTP *HTTP  `json:"http,omitempty"`
	// Claims are those of a token that was verified.
	Claims *Claims `json:"claims,omitempty"`
	Data   string  `json:"data,omitempty"` // what was received, bounded
}

// HTTP is one request and the status that it was answered with.
type HTTP struct {
	Method string `json:"method"`
	Host   string `json:"host"`
	Path   string `json:"path"`
	Status int    `json:"status"`
	Reason string `json:"reason,omitempty"` // of a refusal
}

// Log appends entries to a file, one JSON object a line. It is safe for
// concurrent use.
type Log struct {
	mu   sync.Mutex
	file io.WriteCloser
}

// CreateLog makes the log file, which must not exist.
func CreateLog(path string) (*Log, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	return &Log{file: file}, nil
}

// Append writes an entry. A log that cannot be written would let an expectation
// hold for nothing, so a failure ends the program.
func (l *Log) Append(e Entry) {
	e.Time = time.Now().UTC()
	line, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("log entry cannot be encoded: %v", err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		panic(fmt.Sprintf("server log cannot be written: %v", err))
	}
}

// Close closes the file.
func (l *Log) Close() error { return l.file.Close() }

// ReadLog returns all entries of a log file, which may still be written to. A
// last line that is not complete yet is left out.
func ReadLog(path string) ([]Entry, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var entries []Entry
	for r := bufio.NewReader(file); ; {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, len(entries)+1, err)
		}
		entries = append(entries, e)
	}
}
