-- Some templates of all. Changes nothing.
--
-- KEYS  1 all templates (hash)
-- ARGV  1 where to go on, '0' at first  2 how many, about  3 bytes above which no more texts are given
--       4 bytes above which a text is none of ours
-- gives where to go on, '0' at the end, and for each its field and its text: nil is to be asked for by itself

local found = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local page, bytes = {found[1]}, 0
local bytes_max, text_bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
for at = 1, #found[2], 2 do
    local field, text = found[2][at], found[2][at + 1]
    if #field > 512 or #text > text_bytes_max then
        field, text = '', ''
    elseif bytes >= bytes_max then
        text = false
    else
        bytes = bytes + #text
    end
    page[#page + 1] = field
    page[#page + 1] = text
end
return page
