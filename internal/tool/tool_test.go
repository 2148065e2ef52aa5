package tool

import "testing"

func TestPlainPortIsUpgraded(t *testing.T) {
	https := Host{Name: "api.example.org", Port: 443}
	for _, tt := range []struct {
		name     string
		tool     Tool
		port     uint16
		reached  bool
		upstream uint16
	}{
		{"upgrade", Tool{Client: ClientHTTP, Upstream: UpstreamTLS, Hosts: []Host{https}}, 80, true, 443},
		{"as written", Tool{Client: ClientHTTP, Upstream: UpstreamTLS, Hosts: []Host{https}}, 443, true, 443},
		{"own port 80", Tool{Client: ClientHTTP, Upstream: UpstreamTLS, Hosts: []Host{https, {https.Name, 80}}}, 80, true, 80},
		{"plain upstream", Tool{Client: ClientHTTP, Upstream: UpstreamPlain, Hosts: []Host{https}}, 80, false, 443},
		{"pass", Tool{Client: ClientPass, Hosts: []Host{https}}, 80, false, 443},
		{"other port", Tool{Client: ClientHTTP, Upstream: UpstreamTLS, Hosts: []Host{{https.Name, 8443}}}, 80, false, 443},
	} {
		if got := tt.tool.HasHost(https.Name, tt.port); got != tt.reached {
			t.Errorf("%s: reached at %d: %v, want %v", tt.name, tt.port, got, tt.reached)
		}
		if got := tt.tool.UpstreamPort(https.Name, tt.port); tt.reached && got != tt.upstream {
			t.Errorf("%s: upstream port %d, want %d", tt.name, got, tt.upstream)
		}
	}
}
