// How the links of the manual are checked: whatever a link names must be in the repository, headings too.

import remarkGfm from 'remark-gfm'
import remarkValidateLinks from 'remark-validate-links'

export default { plugins: [remarkGfm, [remarkValidateLinks, { repository: false }]] }
