# What a receipt says, in English. Amounts, dates and codes arrive formatted.

subject = Payment receipt No. { $number }: { $service }, { $amount }
title = Payment receipt
paid = Paid
intro = Your payment has been received. Please keep this receipt.
amount = { $amount } { $currency }
currency-kgs = KGS

label-number = Receipt number
label-paid-at = Date and time
label-service = Service
label-bill = Payment code
label-applicant = Applicant
label-amount = Amount
label-card = Card
label-authorization = Authorization code
label-rrn = Bank reference (RRN)
label-payment = Payment ID

service-passport = Passport
service-driving-licence = Driving licence
service-meken-card = Meken Card
service-other = State service

brand-visa = Visa
brand-mastercard = Mastercard
brand-mir = Mir
brand-unionpay = UnionPay
brand-elcart = Elcart
brand-other = Bank card

online = View the receipt online
questions = Questions? { $operator }, tel. { $phone }, { $email }
not-yours = If you did not make this payment, please tell your bank and us at once.
