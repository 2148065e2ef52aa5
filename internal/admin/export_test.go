package admin

import "time"

// SetReadTimeout makes the server's patience with requests short.
func (s *Server) SetReadTimeout(d time.Duration) { s.readTimeout = d }
