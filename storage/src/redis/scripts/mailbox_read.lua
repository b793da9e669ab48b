-- Reads a page of a mailbox from its oldest entry, or from behind one. Changes nothing.
--
-- KEYS  1 the stream  2 its meta hash
-- ARGV  1 from: '-' or '(' and a stream id  2 max entries  3 bytes above which the page ends
--       4 bytes above which an entry is not given
-- gives epoch, newest seq, the server's time in ms, whether there may be more, and for each entry:
--       stream id, mark 'seq:expires in ms' or nil, data or nil

local head = redis.call('HMGET', KEYS[2], 'epoch', 'seq')
local time = redis.call('TIME')
local page = {head[1], head[2], time[1] .. string.format('%03d', math.floor(tonumber(time[2]) / 1000)), 1}
local from, left, bytes = ARGV[1], tonumber(ARGV[2]), 0
local bytes_max, entry_bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
while left > 0 and bytes < bytes_max do
    -- A few at a time: what is read beyond the page was read in vain.
    local want = math.min(left, 8)
    local entries = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', want)
    for _, entry in ipairs(entries) do
        if bytes >= bytes_max then
            break
        end
        local id, fields, data = entry[1], entry[2], false
        for at = 1, #fields, 2 do
            if fields[at] == 'data' and #fields[at + 1] <= entry_bytes_max then
                data = fields[at + 1]
                bytes = bytes + #data
            end
        end
        page[#page + 1] = id
        page[#page + 1] = redis.call('HGET', KEYS[2], id)
        page[#page + 1] = data
        from = '(' .. id
        left = left - 1
    end
    if #entries < want then
        page[4] = 0
        break
    end
end
return page
