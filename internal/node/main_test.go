package node

import (
	"os"
	"testing"

	"github.com/varvel/varvel/internal/keeper"
)

// TestMain is the keeper too, when a node of a test starts it.
func TestMain(m *testing.M) {
	keeper.Main() // does not return in the keeper
	os.Exit(m.Run())
}
