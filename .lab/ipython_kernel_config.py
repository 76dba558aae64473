"What a kernel of this environment does not say; `make setup` puts this file where kernels read it."
import logging

# ipykernel 7 warns at each start that kernel and notebook talk over TCP without encryption. They do
# so on this machine alone, and papermill has no option for anything else.
logging.getLogger("IPKernelApp").addFilter(lambda r: "without encryption" not in r.getMessage())
