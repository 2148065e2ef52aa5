package testutil

import (
	"fmt"
	"os"
	"os/exec"
)

// Build builds varveld, varvel-init and varvel into a folder as they are shipped.
func Build(dir string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", dir+"/",
		"github.com/varvel/varvel/cmd/varveld", "github.com/varvel/varvel/cmd/varvel-init", "github.com/varvel/varvel/cmd/varvel")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	return nil
}
