// Varvel-init is the first process of a run, and becomes its command in a second
// stage. Varveld starts it; it does the same in varveld, which is ten times as
// large and so takes longer to start.
package main

import (
	"fmt"
	"os"

	"github.com/varvel/varvel/internal/launch"
)

func main() {
	launch.InitMain() // does not return in a run
	fmt.Fprintln(os.Stderr, "varvel-init: this is the first process of a run, which varveld starts; start a run with: varvel run --agent NAME -- COMMAND")
	os.Exit(launch.CodeRefused)
}
